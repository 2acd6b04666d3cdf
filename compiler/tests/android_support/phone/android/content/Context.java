package android.content;

/** What an app of a test overrides. */
public abstract class Context {
    public static final String POWER_SERVICE = "power";

    public abstract Context getApplicationContext();

    public abstract Object getSystemService(String name);

    public abstract void registerComponentCallbacks(ComponentCallbacks callbacks);

    public abstract Intent registerReceiver(BroadcastReceiver receiver, IntentFilter filter);

    public abstract void unregisterComponentCallbacks(ComponentCallbacks callbacks);

    public abstract void unregisterReceiver(BroadcastReceiver receiver);
}
