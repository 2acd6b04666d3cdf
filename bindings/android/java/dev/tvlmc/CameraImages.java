package dev.tvlmc;

import android.media.Image.Plane;

/** Pictures of Android's cameras. A class of its own, so that the others run on any Java. */
public final class CameraImages {
    /** {@code android.graphics.ImageFormat.YUV_420_888}. */
    private static final int YUV_420_888 = 0x23;

    private CameraImages() {}

    /**
     * Encodes a picture of the format {@code YUV_420_888}, as an {@code ImageReader} or CameraX gives it. It is not turned: ask the camera
     * for upright pictures, or turn the phone's rotation away before.
     */
    public static Image encode(Session session, android.media.Image picture) throws TvlmException {
        return encode(session, picture, 0);
    }

    /** The same at a side of the model, as {@link Session#encode(java.nio.ByteBuffer, int, int, int, int, int)} takes it. */
    public static Image encode(Session session, android.media.Image picture, int side) throws TvlmException {
        if (picture.getFormat() != YUV_420_888) {
            throw new TvlmException(
                    TvlmException.IMAGE, "image: format " + picture.getFormat() + ", YUV_420_888 is expected");
        }
        Plane[] all = picture.getPlanes();
        Planes.Plane[] planes = new Planes.Plane[all.length];
        for (int i = 0; i < all.length; i++) {
            planes[i] = new Planes.Plane(all[i].getBuffer(), all[i].getRowStride(), all[i].getPixelStride());
        }
        int width = picture.getWidth();
        int height = picture.getHeight();
        int stride = Planes.stride(width);
        return session.encode(Planes.pack(planes, width, height), width, height, stride, Session.NV12, side);
    }

    /** Encodes a picture of the format {@code NV21}, as the older camera interface gives it. */
    public static Image encode(Session session, byte[] nv21, int width, int height) throws TvlmException {
        return session.encode(Planes.packNv21(nv21, width, height), width, height, Planes.stride(width), Session.NV12);
    }
}
