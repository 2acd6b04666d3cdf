package dev.tvlmc;

/** What a picture became, for all sessions of the model: see {@link Session#encode}. */
public final class Image extends Handle {
    Image(long pointer) {
        super(pointer);
    }

    @Override
    void release(long pointer) {
        Native.imageClose(pointer, null);
    }
}
