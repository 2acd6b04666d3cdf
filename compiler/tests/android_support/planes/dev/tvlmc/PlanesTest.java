package dev.tvlmc;

import java.nio.ByteBuffer;

/** Planes as different cameras have them become the same bytes, and those that lack some are refused. */
public final class PlanesTest {
    private static final int WIDTH = 5;
    private static final int HEIGHT = 3;

    public static void main(String[] args) throws TvlmException {
        byte[] expected = new byte[6 * 3 + 6 * 2];
        for (int y = 0; y < HEIGHT; y++) {
            for (int x = 0; x < WIDTH; x++) {
                expected[y * 6 + x] = luma(x, y);
            }
        }
        for (int y = 0; y < 2; y++) {
            for (int x = 0; x < 3; x++) {
                expected[18 + y * 6 + 2 * x] = chroma(x, y, 0);
                expected[18 + y * 6 + 2 * x + 1] = chroma(x, y, 1);
            }
        }
        // Behind the width a row keeps what the one before had there: the library does not look at it.
        for (int step = 1; step <= 2; step++) {
            for (int gap = 0; gap < 4; gap += 3) {
                Planes.Plane[] planes = {
                    plane(WIDTH, HEIGHT, 1, gap, -1), plane(3, 2, step, gap, 0), plane(3, 2, step, gap, 1)
                };
                same(expected, Planes.pack(planes, WIDTH, HEIGHT), "step " + step + ", gap " + gap);
            }
        }
        byte[] nv21 = new byte[WIDTH * HEIGHT + 12];
        for (int i = 0; i < WIDTH * HEIGHT; i++) {
            nv21[i] = luma(i % WIDTH, i / WIDTH);
        }
        for (int i = 0; i < 12; i++) {
            nv21[WIDTH * HEIGHT + i] = chroma(i % 6 / 2, i / 6, 1 - i % 2);
        }
        same(expected, Planes.packNv21(nv21, WIDTH, HEIGHT), "NV21");

        refused(() -> Planes.packNv21(new byte[26], WIDTH, HEIGHT));
        refused(() -> Planes.packNv21(nv21, 0, HEIGHT));
        refused(() -> Planes.packNv21(nv21, 1 << 30, 1 << 30));
        Planes.Plane whole = plane(WIDTH, HEIGHT, 1, 0, -1);
        Planes.Plane small = plane(3, 2, 1, 0, 0);
        refused(() -> Planes.pack(new Planes.Plane[] {whole}, WIDTH, HEIGHT));
        refused(() -> Planes.pack(new Planes.Plane[] {whole, small, small}, WIDTH, HEIGHT + 2));
        refused(() -> Planes.pack(new Planes.Plane[] {small, small, small}, WIDTH, HEIGHT));
        refused(() -> Planes.pack(new Planes.Plane[] {whole, small, new Planes.Plane(small.bytes, 3, 0)}, WIDTH, HEIGHT));
        System.out.println("done");
    }

    private static byte luma(int x, int y) {
        return (byte) (200 + 10 * y + x);
    }

    private static byte chroma(int x, int y, int kind) {
        return (byte) (100 * kind + 10 * y + x);
    }

    /** A plane of the picture, with room between its values and rows, and none behind the last one. */
    private static Planes.Plane plane(int columns, int rows, int step, int gap, int kind) {
        int rowStride = (columns - 1) * step + 1 + gap;
        byte[] bytes = new byte[(rows - 1) * rowStride + (columns - 1) * step + 1];
        for (int y = 0; y < rows; y++) {
            for (int x = 0; x < columns; x++) {
                bytes[y * rowStride + x * step] = kind < 0 ? luma(x, y) : chroma(x, y, kind);
            }
        }
        return new Planes.Plane(ByteBuffer.wrap(bytes), rowStride, step);
    }

    private static void same(byte[] expected, ByteBuffer found, String what) {
        if (!found.isDirect() || found.position() != 0 || found.remaining() != expected.length) {
            throw new AssertionError(what + ": " + found);
        }
        for (int i = 0; i < expected.length; i++) {
            boolean isGap = i < 18 && i % 6 == 5;
            if (!isGap && found.get(i) != expected[i]) {
                throw new AssertionError(what + ": byte " + i + " is " + found.get(i) + ", not " + expected[i]);
            }
        }
    }

    private interface Call {
        void run() throws TvlmException;
    }

    private static void refused(Call call) {
        try {
            call.run();
        } catch (TvlmException e) {
            return;
        }
        throw new AssertionError("a picture that cannot be was taken");
    }
}
