package android.os;

/** As hot as a test says. */
public final class PowerManager {
    public interface OnThermalStatusChangedListener {
        void onThermalStatusChanged(int status);
    }

    public static final String ACTION_POWER_SAVE_MODE_CHANGED = "android.os.action.POWER_SAVE_MODE_CHANGED";

    public int status;
    public boolean saves;
    public OnThermalStatusChangedListener listener;

    public void addThermalStatusListener(OnThermalStatusChangedListener listener) {
        this.listener = listener;
    }

    public int getCurrentThermalStatus() {
        return status;
    }

    public boolean isPowerSaveMode() {
        return saves;
    }

    public void removeThermalStatusListener(OnThermalStatusChangedListener listener) {
        if (this.listener == listener) {
            this.listener = null;
        }
    }
}
