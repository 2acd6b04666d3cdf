package dev.tvlmc;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * A conversation. It works for one caller at a time, on that caller's thread, for up to seconds: not for the main thread of an
 * app. While it works, other calls throw {@link TvlmException#BUSY}, except for {@link #cancel}, {@link #pause}, {@link #resume},
 * {@link #pressure} and {@link #close}.
 */
public final class Session extends Handle {
    /** How answers are made. Fields that are left alone have their defaults. */
    public static final class Options {
        /** Threads, the calling one included; 0: as the model was told. Not changed later. */
        public int threads;
        /** Most tokens of an answer, the end token included; 0: 256. */
        public int maxNewTokens;
        /** 0: the likeliest token each time; up to 100. */
        public float temperature;
        /** Only so many tokens can be drawn; 0: all. */
        public int topK;
        /** Only tokens that reach this probability together; 0: all. */
        public float topP;
        /** 0: off; up to 100. */
        public float repetitionPenalty;
        /** Where the random numbers start. */
        public long seed;
        /** Tokens guessed and verified together, which changes no answer; 0: as suits; -1: none. */
        public int speculation;
        /** {@link #AFFINITY_FREE} or {@link #AFFINITY_PERFORMANCE}. Not changed later. */
        public int affinity;

        /** Threads run on any processor. */
        public static final int AFFINITY_FREE = 0;
        /** Threads are bound to the fast processors, the calling one while it works. */
        public static final int AFFINITY_PERFORMANCE = 1;
    }

    /** What a session is doing, and with what. */
    public static final class Info {
        /** Nothing was asked for. */
        public static final int BOUND_FREE = 0;
        /** Threads run on {@link #processors} and no others. */
        public static final int BOUND_PROCESSORS = 1;
        /** Threads have a class of Apple's systems; not on Android. */
        public static final int BOUND_USER_INITIATED = 2;
        /** The system does not tell fast processors, or refused. */
        public static final int BOUND_REFUSED = 3;

        /** Threads, the calling one included. */
        public final int threads;
        /** Those that work under the present pressure. */
        public final int activeThreads;
        /** Pixels on each side of the square that the next picture becomes. */
        public final int imageSide;
        /** Positions of the conversation. */
        public final int position;
        /** What came of {@link Options#affinity}: one of {@code BOUND_}. */
        public final int bound;
        /** Processors that threads are bound to, if they are. */
        public final int processors;

        Info(long[] numbers) {
            threads = (int) numbers[0];
            activeThreads = (int) numbers[1];
            imageSide = (int) numbers[2];
            position = (int) numbers[3];
            bound = (int) numbers[4];
            processors = (int) numbers[5];
        }
    }

    /** Bytes of a pixel: red, green, blue. */
    public static final int RGB8 = 0;
    /** Red, green, blue and one byte that is not looked at: transparent pictures are drawn on white before. */
    public static final int RGBA8 = 1;
    /** Blue, green, red and one byte that is not looked at. */
    public static final int BGRA8 = 2;
    /** One byte. */
    public static final int GRAY8 = 3;
    /**
     * A plane of luma and behind it one of blue and red chroma in turn for each 2 x 2 pixels, both with the same stride: BT.601, values
     * from 0 to 255. {@link CameraImages} makes it of what cameras give.
     */
    public static final int NV12 = 4;
    /** The same with luma from 16 to 235 and chroma from 16 to 240. */
    public static final int NV12_VIDEO = 5;

    Session(long pointer) {
        super(pointer);
    }

    /** Other options from the next answer on. */
    public void configure(Options options) throws TvlmException {
        long session = enter();
        try {
            Native.check(
                    error ->
                            Native.sessionConfigure(
                                    session,
                                    options.threads,
                                    options.maxNewTokens,
                                    options.temperature,
                                    options.topK,
                                    options.topP,
                                    options.repetitionPenalty,
                                    options.seed,
                                    options.speculation,
                                    options.affinity,
                                    error));
        } finally {
            leave();
        }
    }

    /** As {@link #encode(ByteBuffer, int, int, int, int, int)}, at the side that is the default. */
    public Image encode(ByteBuffer pixels, int width, int height, int stride, int format) throws TvlmException {
        return encode(pixels, width, height, stride, format, 0);
    }

    /**
     * Encodes a picture, once: it can be asked about in all sessions of the model.
     *
     * @param pixels rows of pixels, the upper row first, from the buffer's position on; faster if it is direct
     * @param width pixels in a row
     * @param height rows
     * @param stride bytes from one row to the next; 0: without gaps
     * @param format {@link #RGB8} or another of these constants
     * @param side of the square that the model sees, one of {@link Model.Info#sides}; 0: the largest, smaller under {@link #pressure}
     */
    public Image encode(ByteBuffer pixels, int width, int height, int stride, int format, int side)
            throws TvlmException {
        ByteBuffer rows = pixels.slice();
        if (!rows.isDirect()) {
            ByteBuffer copy = ByteBuffer.allocateDirect(rows.remaining());
            copy.put(rows);
            rows = copy;
        }
        ByteBuffer direct = rows;
        long[] image = new long[1];
        long session = enter();
        try {
            Native.check(
                    error ->
                            Native.sessionEncode(session, direct, width, height, stride, format, side, image, error));
        } finally {
            leave();
        }
        return new Image(image[0]);
    }

    /** Asks about no picture, or goes on about those that were asked about before. */
    public Answer ask(String question) throws TvlmException {
        return ask(question, new Image[0], null);
    }

    /**
     * Asks about pictures, or none, and goes on with the conversation. Returns when the answer has ended.
     *
     * @param images in the order in which the question means them
     * @param onText gets the answer as it is made; may be null
     */
    public Answer ask(String question, Image[] images, OnText onText) throws TvlmException {
        StringBuilder text = new StringBuilder();
        Native.Pieces pieces = pieces(text, onText);
        byte[] asked = Native.bytes(question);
        long[] pointers = new long[images.length];
        long[] result = new long[Answer.NUMBERS];
        int entered = 0;
        long session = enter();
        try {
            while (entered < images.length) {
                pointers[entered] = images[entered].enter();
                entered++;
            }
            Native.check(error -> Native.sessionAsk(session, pointers, asked, pieces, result, error));
        } finally {
            for (int i = 0; i < entered; i++) {
                images[i].leave();
            }
            leave();
        }
        return new Answer(text.toString(), result);
    }

    /**
     * Goes on with an answer that ended before the model ended it: by its listener, by {@link #cancel}, at its longest, or before
     * the conversation was saved.
     *
     * @param onText gets the rest as it is made; may be null
     * @return the rest
     */
    public Answer goOn(OnText onText) throws TvlmException {
        StringBuilder text = new StringBuilder();
        Native.Pieces pieces = pieces(text, onText);
        long[] result = new long[Answer.NUMBERS];
        long session = enter();
        try {
            Native.check(error -> Native.sessionContinue(session, pieces, result, error));
        } finally {
            leave();
        }
        return new Answer(text.toString(), result);
    }

    private static Native.Pieces pieces(StringBuilder text, OnText onText) {
        return utf8 -> {
            String piece = new String(utf8, StandardCharsets.UTF_8);
            text.append(piece);
            return onText == null || onText.onText(piece) ? 0 : 1;
        };
    }

    /**
     * Lets what this session does wait after its current step, with all threads asleep, from any thread; work that begins
     * meanwhile waits too, until {@link #resume}. What is paused can be cancelled.
     */
    public void pause() {
        tell(session -> Native.sessionPause(session, null));
    }

    /** Lets it go on, from any thread. */
    public void resume() {
        tell(session -> Native.sessionResume(session, null));
    }

    /** Tells how the device is, from any thread: one of {@link Pressure}. Holds until something else is told. */
    public void pressure(int pressure) {
        if (pressure < Pressure.NOMINAL || pressure > Pressure.CRITICAL) {
            throw new IllegalArgumentException("pressure: " + pressure + " is none of Pressure");
        }
        tell(session -> Native.sessionPressure(session, pressure, null));
    }

    /**
     * Writes the conversation to a file, which is complete or as it was before. It holds what was said: put it where other apps
     * cannot read.
     */
    public void save(File file) throws TvlmException {
        byte[] path = Native.bytes(file.getPath());
        long session = enter();
        try {
            Native.check(error -> Native.sessionSave(session, path, error));
        } finally {
            leave();
        }
    }

    /**
     * Takes up a conversation that a session of the same library and weights saved, also in another process: it goes on with the
     * same tokens. Options of sampling are part of it. After a failure the conversation is what it was.
     */
    public void restore(File file) throws TvlmException {
        byte[] path = Native.bytes(file.getPath());
        long session = enter();
        try {
            Native.check(error -> Native.sessionRestore(session, path, error));
        } finally {
            leave();
        }
    }

    /**
     * Gives back memory that the conversation does not need; the next answer takes longer to begin.
     *
     * @return bytes that were in memory
     */
    public long trim() throws TvlmException {
        long[] bytes = new long[1];
        long session = enter();
        try {
            Native.check(error -> Native.sessionTrim(session, bytes, error));
        } finally {
            leave();
        }
        return bytes[0];
    }

    /** What this session does, and with what. */
    public Info info() throws TvlmException {
        long[] numbers = new long[6];
        long session = enter();
        try {
            Native.check(error -> Native.sessionInfo(session, numbers, error));
        } finally {
            leave();
        }
        return new Info(numbers);
    }

    /** Stops what this session does, from any thread; without effect where it does nothing. */
    public void cancel() {
        tell(session -> Native.sessionCancel(session, null));
    }

    /** Something that is told from any thread, and that a closed session does not hear. */
    private interface Order {
        int to(long session);
    }

    private void tell(Order order) {
        long session;
        try {
            session = enter();
        } catch (IllegalStateException closed) {
            return;
        }
        try {
            order.to(session);
        } finally {
            leave();
        }
    }

    /** Begins a new conversation; pictures stay. */
    public void reset() throws TvlmException {
        long session = enter();
        try {
            Native.check(error -> Native.sessionReset(session, error));
        } finally {
            leave();
        }
    }

    /** Stops what this session does, and releases it as soon as it has ended. */
    @Override
    public void close() {
        cancel();
        super.close();
    }

    @Override
    void release(long pointer) {
        Native.sessionClose(pointer, null);
    }
}
