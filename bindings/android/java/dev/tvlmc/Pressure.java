package dev.tvlmc;

/**
 * How much the device wants to be left alone, for {@link Session#pressure}: 3/4, 1/2 and one of the threads work, smaller pictures
 * from {@link #SERIOUS} on where the model has several sides, rests between tokens when {@link #CRITICAL}. Threads and rests
 * change no answer; a picture that is encoded smaller shows less: pass a side where that must not be.
 */
public final class Pressure {
    /** Not at all. */
    public static final int NOMINAL = 0;
    /** It gets warm. */
    public static final int FAIR = 1;
    /** It slows down. */
    public static final int SERIOUS = 2;
    /** It will stop what it can. */
    public static final int CRITICAL = 3;

    private Pressure() {}

    /** Of a {@code THERMAL_STATUS_} of Android's {@code PowerManager}, from none (0) to shutdown (6). */
    public static int ofThermalStatus(int status) {
        switch (status) {
            case 0:
                return NOMINAL;
            // Light and moderate: nobody notices yet, or hardly.
            case 1:
            case 2:
                return FAIR;
            // Severe.
            case 3:
                return SERIOUS;
            // Critical, emergency, shutdown. What is below none is no status.
            default:
                return status < 0 ? NOMINAL : CRITICAL;
        }
    }
}
