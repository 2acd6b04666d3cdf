package android.content;

/** As {@link ComponentCallbacks}. */
public abstract class BroadcastReceiver {
    public abstract void onReceive(Context context, Intent intent);
}
