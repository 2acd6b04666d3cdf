package android.content.res;

/** As {@code android.content.ComponentCallbacks}. */
public final class Configuration {
    private Configuration() {}
}
