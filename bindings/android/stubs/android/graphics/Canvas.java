package android.graphics;

/** As {@link Bitmap}. */
public class Canvas {
    public Canvas(Bitmap bitmap) {}

    public native void drawBitmap(Bitmap bitmap, float left, float top, Paint paint);

    public native void drawColor(int color);
}
