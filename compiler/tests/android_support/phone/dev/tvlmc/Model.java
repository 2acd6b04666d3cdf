package dev.tvlmc;

/** As {@link Session}. */
public final class Model {
    public int trims;

    public long trim() throws TvlmException {
        trims++;
        return 0;
    }
}
