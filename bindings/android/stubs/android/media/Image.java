package android.media;

import java.nio.ByteBuffer;

/** What {@code dev.tvlmc.CameraImages} calls, as Android declares it: for compiling without an Android SDK, in no archive. */
public abstract class Image implements AutoCloseable {
    public abstract static class Plane {
        public abstract ByteBuffer getBuffer();

        public abstract int getPixelStride();

        public abstract int getRowStride();
    }

    public abstract int getFormat();

    public abstract int getHeight();

    public abstract Plane[] getPlanes();

    public abstract int getWidth();
}
