package android.content;

import android.content.res.Configuration;

/** What {@code dev.tvlmc.Phone} implements, as Android declares it: for compiling without an Android SDK, in no archive. */
public interface ComponentCallbacks {
    void onConfigurationChanged(Configuration configuration);

    void onLowMemory();
}
