package dev.tvlmc;

/**
 * Something of the native library that is released when it was closed and nobody uses it any more. So an image may be closed
 * by one thread while another one still asks about it.
 */
public abstract class Handle implements AutoCloseable {
    private final long pointer;
    private int users;
    private boolean closed;

    Handle(long pointer) {
        this.pointer = pointer;
    }

    /** Releases what {@code pointer} stands for. */
    abstract void release(long pointer);

    /** What the library calls this, until {@link #leave} is called as often. */
    final synchronized long enter() {
        if (closed) {
            throw new IllegalStateException(getClass().getSimpleName() + " is closed");
        }
        users++;
        return pointer;
    }

    /** Ends a use. */
    final void leave() {
        boolean last;
        synchronized (this) {
            users--;
            last = closed && users == 0;
        }
        if (last) {
            release(pointer);
        }
    }

    /** Releases this, as soon as nobody uses it. Further calls have no effect. */
    @Override
    public void close() {
        boolean last;
        synchronized (this) {
            last = !closed && users == 0;
            closed = true;
        }
        if (last) {
            release(pointer);
        }
    }
}
