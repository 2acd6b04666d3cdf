package android.content;

/** Remembers what it lets through. */
public class IntentFilter {
    public final String action;

    public IntentFilter(String action) {
        this.action = action;
    }
}
