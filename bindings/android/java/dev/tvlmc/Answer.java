package dev.tvlmc;

/** An answer, and what it took. */
public final class Answer {
    /** The model has said all. */
    public static final int END_OF_TEXT = 1;
    /** {@link Session.Options#maxNewTokens} were made. */
    public static final int MAX_TOKENS = 2;
    /** The conversation has no more positions. */
    public static final int CONTEXT_FULL = 3;
    /** {@link Session#cancel} was called. */
    public static final int CANCELLED = 4;
    /** {@link OnText} wanted no more. */
    public static final int CALLBACK = 5;

    /** The whole text, as far as it was made. */
    public final String text;
    /** Why it ended: one of the constants of this class. */
    public final int stop;
    /** Tokens of the answer, the end token included. */
    public final int tokens;
    /** Positions that were computed for the question; what the session held already is not. */
    public final int prefillRows;
    /** Positions of the conversation by now. */
    public final int position;
    /** Milliseconds of reading the question. */
    public final double prefillMillis;
    /** Milliseconds of all tokens after the first one, pauses included. */
    public final double decodeMillis;
    /** Milliseconds of rests between them under {@link Pressure#CRITICAL}, which {@link #decodeMillis} leaves out. */
    public final double restedMillis;

    /** Numbers that an answer is made of, besides its text. */
    static final int NUMBERS = 7;

    Answer(String text, long[] result) {
        this.text = text;
        stop = (int) result[0];
        tokens = (int) result[1];
        prefillRows = (int) result[2];
        position = (int) result[3];
        prefillMillis = Double.longBitsToDouble(result[4]);
        decodeMillis = Double.longBitsToDouble(result[5]);
        restedMillis = Double.longBitsToDouble(result[6]);
    }
}
