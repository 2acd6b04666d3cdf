package dev.tvlmc;

import java.io.File;

/**
 * A model. It is opened once, in milliseconds, and may be used by several threads; its conversations are {@link Session}s.
 *
 * <pre>{@code
 * try (Model model = new Model(weights);
 *         Session chat = model.session(new Session.Options());
 *         Image photo = Bitmaps.encode(chat, bitmap)) {
 *     Answer answer = chat.ask("What is on the table?", new Image[] {photo}, piece -> {
 *         System.out.print(piece);
 *         return true;
 *     });
 * }
 * }</pre>
 */
public final class Model extends Handle {
    /** How a weight file is opened. Fields that are left alone have their defaults. */
    public static final class Options {
        /** Everything is compared with checksums if the file is small, else its header. */
        public static final int VERIFY_AUTO = 0;
        /** The header is compared. */
        public static final int VERIFY_HEADER = 1;
        /** Everything is compared. */
        public static final int VERIFY_FULL = 2;
        /** Private memory for small files, a mapped file for others. */
        public static final int RESIDENCE_AUTO = 0;
        /** A mapped file, of which the system may drop pages. */
        public static final int RESIDENCE_MAPPED = 1;
        /** Private memory. */
        public static final int RESIDENCE_COPIED = 2;

        /** Threads of sessions that do not say; 0: the fast processors. */
        public int threads;
        /** One of {@code VERIFY_}. */
        public int verify;
        /** One of {@code RESIDENCE_}. */
        public int residence;
        /** Name of an instruction-set level; null: the best that this processor has. */
        public String level;
    }

    /** What is known about a model. */
    public static final class Info {
        /** Pixels on each side of the square that a picture becomes: the largest of {@code sides}. */
        public final int imageSide;
        /** Positions that a picture of this side takes. */
        public final int tokensPerImage;
        /** The sides that pictures can have, from small to large. */
        public final int[] sides;
        /** Positions that a picture of each of them takes. */
        public final int[] tokensOfSides;
        /** Positions of a conversation, pictures and answers included. */
        public final int maxContext;
        /** Most tokens that are guessed and verified together. */
        public final int maxSpeculation;
        /** Bytes of a session, shared by its threads. */
        public final long arenaBytes;
        /** Bytes of each thread of a session. */
        public final long scratchBytesPerThread;
        /** Bytes of the weight file. */
        public final long weightsBytes;
        /** Instruction-set level in use. */
        public final String level;

        Info(long[] numbers, String level) {
            imageSide = (int) numbers[0];
            tokensPerImage = (int) numbers[1];
            maxContext = (int) numbers[2];
            maxSpeculation = (int) numbers[3];
            arenaBytes = numbers[4];
            scratchBytesPerThread = numbers[5];
            weightsBytes = numbers[6];
            sides = new int[(int) numbers[7]];
            tokensOfSides = new int[sides.length];
            for (int i = 0; i < sides.length; i++) {
                sides[i] = (int) numbers[8 + 2 * i];
                tokensOfSides[i] = (int) numbers[9 + 2 * i];
            }
            this.level = level;
        }
    }

    /** Opens the weight file that belongs to this library. */
    public Model(File weights) throws TvlmException {
        this(weights, new Options());
    }

    /** Opens the weight file that belongs to this library. */
    public Model(File weights, Options options) throws TvlmException {
        super(open(weights, options));
    }

    private static long open(File weights, Options options) throws TvlmException {
        byte[] path = Native.bytes(weights.getPath());
        byte[] level = Native.bytes(options.level);
        long[] model = new long[1];
        Native.check(
                error ->
                        Native.modelOpen(path, options.threads, options.verify, options.residence, level, model, error));
        return model[0];
    }

    /** More than there are multiples of 64 pixels below the largest side that a model can have, 16384. */
    private static final int MOST_SIDES = 258;

    /** What is known about this model. */
    public Info info() throws TvlmException {
        long[] numbers = new long[8 + 2 * MOST_SIDES];
        byte[] level = new byte[64];
        long model = enter();
        try {
            Native.check(error -> Native.modelInfo(model, numbers, level, error));
        } finally {
            leave();
        }
        return new Info(numbers, Native.text(level));
    }

    /** Begins a conversation: its memory and its threads. The model may be closed before its sessions. */
    public Session session(Session.Options options) throws TvlmException {
        long[] session = new long[1];
        long model = enter();
        try {
            Native.check(
                    error ->
                            Native.sessionOpen(
                                    model,
                                    options.threads,
                                    options.maxNewTokens,
                                    options.temperature,
                                    options.topK,
                                    options.topP,
                                    options.repetitionPenalty,
                                    options.seed,
                                    options.speculation,
                                    options.affinity,
                                    session,
                                    error));
        } finally {
            leave();
        }
        return new Session(session[0]);
    }

    /**
     * Gives pages of mapped weights back to the system, which reads them again as they are needed; sessions may work meanwhile.
     *
     * @return bytes that were in memory
     */
    public long trim() throws TvlmException {
        long[] bytes = new long[1];
        long model = enter();
        try {
            Native.check(error -> Native.modelTrim(model, bytes, error));
        } finally {
            leave();
        }
        return bytes[0];
    }

    @Override
    void release(long pointer) {
        Native.modelClose(pointer, null);
    }
}
