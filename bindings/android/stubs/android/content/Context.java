package android.content;

/** As {@link ComponentCallbacks}. */
public abstract class Context {
    public static final String POWER_SERVICE = "power";

    public abstract Context getApplicationContext();

    public abstract Object getSystemService(String name);

    public native void registerComponentCallbacks(ComponentCallbacks callbacks);

    public abstract Intent registerReceiver(BroadcastReceiver receiver, IntentFilter filter);

    public native void unregisterComponentCallbacks(ComponentCallbacks callbacks);

    public abstract void unregisterReceiver(BroadcastReceiver receiver);
}
