package android.graphics;

/** As {@link Bitmap}. */
public class Paint {}
