package dev.tvlmc;

/** Notes what it is told. */
public final class Session {
    public int pressure = -1;
    public int trims;
    public boolean busy;

    public void pressure(int pressure) {
        this.pressure = pressure;
    }

    public long trim() throws TvlmException {
        if (busy) {
            throw new TvlmException(TvlmException.BUSY, "session");
        }
        trims++;
        return 0;
    }
}
