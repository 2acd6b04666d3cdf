package android.content;

/** As {@link ComponentCallbacks}. */
public class Intent {
    private Intent() {}
}
