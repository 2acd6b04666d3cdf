package android.os;

/** As {@code android.content.ComponentCallbacks}. */
public final class PowerManager {
    public interface OnThermalStatusChangedListener {
        void onThermalStatusChanged(int status);
    }

    public static final String ACTION_POWER_SAVE_MODE_CHANGED = "android.os.action.POWER_SAVE_MODE_CHANGED";

    private PowerManager() {}

    public native void addThermalStatusListener(OnThermalStatusChangedListener listener);

    public native int getCurrentThermalStatus();

    public native boolean isPowerSaveMode();

    public native void removeThermalStatusListener(OnThermalStatusChangedListener listener);
}
