package android.os;

/** Of a version that a test chooses. */
public final class Build {
    public static final class VERSION {
        public static int SDK_INT;
    }
}
