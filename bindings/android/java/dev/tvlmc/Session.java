package dev.tvlmc;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * A conversation. It works for one caller at a time, on that caller's thread, for up to seconds: not for the main thread of an
 * app. While it works, other calls throw {@link TvlmException#BUSY}, except for {@link #cancel} and {@link #close}.
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
    }

    /** Bytes of a pixel: red, green, blue. */
    public static final int RGB8 = 0;
    /** Red, green, blue and one byte that is not looked at: transparent pictures are drawn on white before. */
    public static final int RGBA8 = 1;
    /** Blue, green, red and one byte that is not looked at. */
    public static final int BGRA8 = 2;
    /** One byte. */
    public static final int GRAY8 = 3;

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
                                    error));
        } finally {
            leave();
        }
    }

    /** As {@link #encode(ByteBuffer, int, int, int, int, int)}, at the largest side. */
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
     * @param side of the square that the model sees, one of {@link Model.Info#sides}; 0: the largest
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
        Native.Pieces pieces =
                utf8 -> {
                    String piece = new String(utf8, StandardCharsets.UTF_8);
                    text.append(piece);
                    return onText == null || onText.onText(piece) ? 0 : 1;
                };
        byte[] asked = Native.bytes(question);
        long[] pointers = new long[images.length];
        long[] result = new long[6];
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

    /** Stops what this session does, from any thread; without effect where it does nothing. */
    public void cancel() {
        long session;
        try {
            session = enter();
        } catch (IllegalStateException closed) {
            return;
        }
        try {
            Native.sessionCancel(session, null);
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
