package android.os;

/** As {@code android.content.ComponentCallbacks}. */
public final class Build {
    public static final class VERSION {
        /** No constant of the compiler's, which would copy it. */
        public static final int SDK_INT = Integer.parseInt("0");

        private VERSION() {}
    }

    private Build() {}
}
