import android.content.BroadcastReceiver;
import android.content.ComponentCallbacks;
import android.content.ComponentCallbacks2;
import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.os.Build;
import android.os.PowerManager;
import dev.tvlmc.Model;
import dev.tvlmc.Phone;
import dev.tvlmc.Pressure;
import dev.tvlmc.Session;

/** Runs {@code Phone} against an Android that does what this says. */
public final class Watch {
    static final class App extends Context {
        final PowerManager power = new PowerManager();
        ComponentCallbacks callbacks;
        BroadcastReceiver receiver;

        @Override
        public Context getApplicationContext() {
            return this;
        }

        @Override
        public Object getSystemService(String name) {
            return name.equals(POWER_SERVICE) ? power : null;
        }

        @Override
        public void registerComponentCallbacks(ComponentCallbacks callbacks) {
            this.callbacks = callbacks;
        }

        @Override
        public void unregisterComponentCallbacks(ComponentCallbacks callbacks) {
            check(this.callbacks == callbacks, "the same callbacks");
            this.callbacks = null;
        }

        @Override
        public Intent registerReceiver(BroadcastReceiver receiver, IntentFilter filter) {
            check(filter.action.equals("android.os.action.POWER_SAVE_MODE_CHANGED"), "the battery saver's broadcast");
            this.receiver = receiver;
            return null;
        }

        @Override
        public void unregisterReceiver(BroadcastReceiver receiver) {
            check(this.receiver == receiver, "the same receiver");
            this.receiver = null;
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    public static void main(String[] arguments) {
        Build.VERSION.SDK_INT = Integer.parseInt(arguments[0]);
        boolean tells = Build.VERSION.SDK_INT >= 29;
        App app = new App();
        Session chat = new Session();
        Model model = new Model();
        app.power.status = 3;
        Phone phone = Phone.watch(app, model, chat);
        check(chat.pressure == (tells ? Pressure.SERIOUS : Pressure.NOMINAL), "the pressure when it begins");
        check((app.power.listener != null) == tells, "a listener from Android 10 on");
        if (tells) {
            app.power.listener.onThermalStatusChanged(5);
            check(chat.pressure == Pressure.CRITICAL, "an emergency");
            app.power.listener.onThermalStatusChanged(0);
        }
        check(chat.pressure == Pressure.NOMINAL, "all is well");
        app.power.saves = true;
        app.receiver.onReceive(app, null);
        check(chat.pressure == Pressure.FAIR, "the battery saver");

        ComponentCallbacks2 memory = (ComponentCallbacks2) app.callbacks;
        int[] levels = {5, 20, 10, 40, 15, 60, 80};
        int[] chats = {0, 0, 1, 2, 3, 4, 5};
        int[] models = {0, 0, 0, 1, 2, 3, 4};
        for (int i = 0; i < levels.length; i++) {
            memory.onTrimMemory(levels[i]);
            check(chat.trims == chats[i] && model.trims == models[i], "level " + levels[i]);
        }
        chat.busy = true;
        memory.onLowMemory();
        check(chat.trims == 5 && model.trims == 5, "one that is at work");

        phone.close();
        phone.close();
        phone.update();
        check(chat.pressure == Pressure.NOMINAL && app.callbacks == null && app.power.listener == null, "the end");
        check(app.receiver == null, "the end of the battery saver");
        System.out.println("watched " + Build.VERSION.SDK_INT);
    }
}
