package android.os;

/** As {@code android.content.ComponentCallbacks}. */
public final class PowerManager {
    public interface OnThermalStatusChangedListener {
        void onThermalStatusChanged(int status);
    }

    private PowerManager() {}

    public native void addThermalStatusListener(OnThermalStatusChangedListener listener);

    public native int getCurrentThermalStatus();

    public native boolean isPowerSaveMode();

    public native void removeThermalStatusListener(OnThermalStatusChangedListener listener);
}
