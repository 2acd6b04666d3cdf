package android.graphics;

import java.nio.Buffer;

/** What {@code dev.tvlmc.Bitmaps} calls, as Android declares it: for compiling without an Android SDK, in no archive. */
public final class Bitmap {
    public enum Config {
        ARGB_8888
    }

    private Bitmap() {}

    public static native Bitmap createBitmap(int width, int height, Config config);

    public native Bitmap copy(Config config, boolean isMutable);

    public native void copyPixelsToBuffer(Buffer buffer);

    public native int getByteCount();

    public native Config getConfig();

    public native int getHeight();

    public native int getRowBytes();

    public native int getWidth();

    public native boolean hasAlpha();
}
