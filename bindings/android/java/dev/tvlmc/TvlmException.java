package dev.tvlmc;

/** What went wrong: a number for programs, and a message that says what was found, what was expected and what to do. */
public final class TvlmException extends Exception {
    /** The system refused a file. */
    public static final int FILE = 1;
    /** The weight file ends early: download it again. */
    public static final int WEIGHTS_TRUNCATED = 2;
    /** The weight file goes on after its end. */
    public static final int WEIGHTS_OVERLONG = 3;
    /** It is some other file. */
    public static final int NOT_WEIGHTS = 4;
    /** A weight file of a version that this library does not read. */
    public static final int WEIGHTS_FORMAT = 5;
    /** A checksum differs. */
    public static final int WEIGHTS_DAMAGED = 6;
    /** The weights of another library. */
    public static final int WEIGHTS_WRONG_BUILD = 7;
    /** A part of the weight file is missing or impossible. */
    public static final int WEIGHTS_SECTION = 8;
    /** The tokenizer's tables contradict themselves. */
    public static final int TOKENIZER = 9;
    /** The processor lacks what the code needs. */
    public static final int CPU = 10;
    /** No such instruction-set level in this library. */
    public static final int UNKNOWN_LEVEL = 11;
    /** There is not enough memory. */
    public static final int OUT_OF_MEMORY = 12;
    /** A picture that cannot be used. */
    public static final int IMAGE = 13;
    /** The conversation would not fit. */
    public static final int PROMPT_TOO_LONG = 14;
    /** Nothing was asked. */
    public static final int EMPTY_PROMPT = 15;
    /** A token that the model does not have. */
    public static final int TOKEN_OUT_OF_RANGE = 16;
    /** An argument that is not allowed. */
    public static final int ARGUMENT = 17;
    /** {@link Session#cancel}, while a picture was encoded or a question read. */
    public static final int CANCELLED = 18;
    /** A thread failed: open a new session. */
    public static final int POISONED = 19;
    /** The library contradicts itself: a bug. */
    public static final int PROGRAM = 20;
    /** The session works for another caller. */
    public static final int BUSY = 21;
    /** Worth a report. */
    public static final int BUG = 22;
    /** A saved conversation that is cut short or changed. */
    public static final int SAVED_DAMAGED = 23;
    /** No saved conversation of this model and build. */
    public static final int SAVED_FOREIGN = 24;

    private static final long serialVersionUID = 1;

    private final int code;

    TvlmException(int code, String message) {
        super(message);
        this.code = code;
    }

    /** One of the constants of this class; later versions may have more. */
    public int code() {
        return code;
    }
}
