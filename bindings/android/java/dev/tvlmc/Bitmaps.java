package dev.tvlmc;

import android.graphics.Bitmap;
import android.graphics.Canvas;
import java.nio.ByteBuffer;

/** Pictures of Android. A class of its own, so that the others run on any Java. */
public final class Bitmaps {
    private static final int WHITE = 0xFFFFFFFF;

    private Bitmaps() {}

    /** As {@link #encode(Session, Bitmap, int)}, at the side that is the default. */
    public static Image encode(Session session, Bitmap bitmap) throws TvlmException {
        return encode(session, bitmap, 0);
    }

    /**
     * Encodes a bitmap of any configuration, on white where it is transparent. It is taken as it lies in memory: turn photos
     * upright before, as their Exif orientation says.
     *
     * @param side of the square that the model sees, one of {@link Model.Info#sides}; 0: the largest, smaller under {@link Session#pressure}
     */
    public static Image encode(Session session, Bitmap bitmap, int side) throws TvlmException {
        Bitmap plain = bitmap;
        if (bitmap.getConfig() != Bitmap.Config.ARGB_8888) {
            // Those of graphics memory can be copied, not drawn.
            plain = bitmap.copy(Bitmap.Config.ARGB_8888, false);
            if (plain == null) {
                throw new TvlmException(TvlmException.IMAGE, "bitmap: cannot be copied as ARGB_8888");
            }
        }
        if (plain.hasAlpha()) {
            Bitmap flat = Bitmap.createBitmap(plain.getWidth(), plain.getHeight(), Bitmap.Config.ARGB_8888);
            Canvas canvas = new Canvas(flat);
            canvas.drawColor(WHITE);
            canvas.drawBitmap(plain, 0, 0, null);
            plain = flat;
        }
        // Named for words of big-endian machines: the bytes are red, green, blue, alpha.
        ByteBuffer pixels = ByteBuffer.allocateDirect(plain.getByteCount());
        plain.copyPixelsToBuffer(pixels);
        pixels.rewind();
        return session.encode(pixels, plain.getWidth(), plain.getHeight(), plain.getRowBytes(), Session.RGBA8, side);
    }
}
