package android.content;

/** As {@link ComponentCallbacks}. */
public class IntentFilter {
    public IntentFilter(String action) {}
}
