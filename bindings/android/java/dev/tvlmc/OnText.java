package dev.tvlmc;

/** Who gets an answer piece by piece, on the thread that asks. */
public interface OnText {
    /** A piece of whole characters. Returning false ends the answer; so does throwing, which the asking thread then sees. */
    boolean onText(String piece);
}
