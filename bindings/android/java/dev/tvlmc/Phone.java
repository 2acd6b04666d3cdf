package dev.tvlmc;

import android.content.BroadcastReceiver;
import android.content.ComponentCallbacks2;
import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.content.res.Configuration;
import android.os.Build;
import android.os.PowerManager;

/**
 * Keeps sessions in step with the phone: its heat and its battery saver become their {@link Pressure}, and they give memory back
 * when Android asks. A class of its own, so that the others run on any Java.
 *
 * <pre>{@code
 * Phone phone = Phone.watch(context, model, chat);
 * ...
 * phone.close(); // before model and session
 * }</pre>
 */
public final class Phone implements AutoCloseable {
    private final Context context;
    private final PowerManager power;
    private final Model model;
    private final Session[] sessions;
    private final ComponentCallbacks2 memory = new Memory();
    private final BroadcastReceiver saver = new Saver();
    /** A {@code Thermal}, or null before Android 10, which does not tell. */
    private final AutoCloseable thermal;
    private int status;
    private boolean closed;

    private Phone(Context context, Model model, Session[] sessions) {
        this.context = context;
        this.model = model;
        this.sessions = sessions;
        power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
        thermal = Build.VERSION.SDK_INT >= 29 && power != null ? new Thermal(this) : null;
        context.registerComponentCallbacks(memory);
        // Only the system sends it, so it takes no flag that says who may.
        context.registerReceiver(saver, new IntentFilter(PowerManager.ACTION_POWER_SAVE_MODE_CHANGED));
        update();
    }

    /** Begins to watch. The sessions are of this model, which may be null. */
    public static Phone watch(Context context, Model model, Session... sessions) {
        return new Phone(context.getApplicationContext(), model, sessions.clone());
    }

    /** Tells sessions the pressure once more, as after an app has told them another one. */
    public synchronized void update() {
        if (closed) {
            return;
        }
        int pressure = Pressure.ofThermalStatus(status);
        if (power != null && power.isPowerSaveMode()) {
            pressure = Math.max(pressure, Pressure.FAIR);
        }
        for (Session session : sessions) {
            session.pressure(pressure);
        }
    }

    /** Ends watching; sessions are told that all is well. */
    @Override
    public synchronized void close() {
        if (closed) {
            return;
        }
        closed = true;
        context.unregisterComponentCallbacks(memory);
        context.unregisterReceiver(saver);
        if (thermal != null) {
            try {
                thermal.close();
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }
        for (Session session : sessions) {
            session.pressure(Pressure.NOMINAL);
        }
    }

    private synchronized void hot(int status) {
        this.status = status;
        update();
    }

    /** One that is at work, or closed, keeps what it has: it needs it. */
    private void trim(boolean weights) {
        for (Session session : sessions) {
            try {
                session.trim();
            } catch (TvlmException | IllegalStateException e) {
                continue;
            }
        }
        if (weights && model != null) {
            try {
                model.trim();
            } catch (TvlmException | IllegalStateException e) {
                return;
            }
        }
    }

    private final class Saver extends BroadcastReceiver {
        @Override
        public void onReceive(Context context, Intent intent) {
            update();
        }
    }

    private final class Memory implements ComponentCallbacks2 {
        @Override
        public void onTrimMemory(int level) {
            // An app that is merely hidden may be back at once.
            if (level >= TRIM_MEMORY_RUNNING_LOW && level != TRIM_MEMORY_UI_HIDDEN) {
                // From Android 14 on this is the last that an app is told before it may be ended.
                trim(level == TRIM_MEMORY_RUNNING_CRITICAL || level >= TRIM_MEMORY_BACKGROUND);
            }
        }

        @Override
        public void onLowMemory() {
            trim(true);
        }

        @Override
        public void onConfigurationChanged(Configuration configuration) {}
    }

    /** Names what older systems lack, which therefore never load it. */
    private static final class Thermal implements PowerManager.OnThermalStatusChangedListener, AutoCloseable {
        private final Phone phone;

        Thermal(Phone phone) {
            this.phone = phone;
            phone.status = phone.power.getCurrentThermalStatus();
            phone.power.addThermalStatusListener(this);
        }

        @Override
        public void onThermalStatusChanged(int status) {
            phone.hot(status);
        }

        @Override
        public void close() {
            phone.power.removeThermalStatusListener(this);
        }
    }
}
