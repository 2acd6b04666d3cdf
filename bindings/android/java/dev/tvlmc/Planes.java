package dev.tvlmc;

import java.nio.ByteBuffer;

/** Planes of luma and chroma in the one order that the library takes, {@link Session#NV12}. */
final class Planes {
    /** Luma, blue or red chroma as Android has it. */
    static final class Plane {
        final ByteBuffer bytes;
        /** Bytes from one row to the next. */
        final int rowStride;
        /** Bytes from one value to the next. */
        final int step;

        Plane(ByteBuffer bytes, int rowStride, int step) {
            this.bytes = bytes.slice();
            this.rowStride = rowStride;
            this.step = step;
        }

        /** Whether the values of so many columns and rows are there. */
        private boolean holds(int columns, int rows) {
            return step > 0
                    && rowStride >= (long) (columns - 1) * step + 1
                    && (long) (rows - 1) * rowStride + (long) (columns - 1) * step < bytes.limit();
        }
    }

    private Planes() {}

    /** Bytes from one row of the result to the next: of an even number of pixels. */
    static int stride(int width) {
        return (width + 1) / 2 * 2;
    }

    /** Planes of luma, blue chroma and red chroma as one. */
    static ByteBuffer pack(Plane[] planes, int width, int height) throws TvlmException {
        int stride = stride(width);
        int columns = stride / 2;
        int rows = (height + 1) / 2;
        boolean fits = planes.length == 3 && width > 0 && height > 0 && planes[0].holds(width, height);
        if (!fits || !planes[1].holds(columns, rows) || !planes[2].holds(columns, rows)) {
            String size = width + " x " + height;
            throw new TvlmException(TvlmException.IMAGE, "image: its planes do not hold " + size + " pixels");
        }
        ByteBuffer all = room(stride, height, rows);
        byte[] row = new byte[stride];
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                row[x] = planes[0].bytes.get(y * planes[0].rowStride + x * planes[0].step);
            }
            all.put(row);
        }
        for (int y = 0; y < rows; y++) {
            for (int x = 0; x < columns; x++) {
                row[2 * x] = planes[1].bytes.get(y * planes[1].rowStride + x * planes[1].step);
                row[2 * x + 1] = planes[2].bytes.get(y * planes[2].rowStride + x * planes[2].step);
            }
            all.put(row);
        }
        all.rewind();
        return all;
    }

    /** The same of a plane of luma and one of red and blue chroma in turn. */
    static ByteBuffer packNv21(byte[] nv21, int width, int height) throws TvlmException {
        int pairs = stride(width);
        ByteBuffer bytes = ByteBuffer.wrap(nv21);
        long chroma = (long) width * height;
        if (width <= 0 || height <= 0 || chroma + (long) pairs * ((height + 1) / 2) > nv21.length) {
            String size = width + " x " + height;
            throw new TvlmException(TvlmException.IMAGE, "image: " + nv21.length + " bytes are too few for " + size);
        }
        Plane luma = new Plane(bytes, width, 1);
        bytes.position((int) chroma);
        Plane red = new Plane(bytes, pairs, 2);
        bytes.position((int) chroma + 1);
        return pack(new Plane[] {luma, new Plane(bytes, pairs, 2), red}, width, height);
    }

    private static ByteBuffer room(int stride, int height, int rows) throws TvlmException {
        long bytes = (long) stride * (height + rows);
        if (bytes > Integer.MAX_VALUE) {
            throw new TvlmException(TvlmException.IMAGE, "image: " + bytes + " bytes are more than a buffer has");
        }
        return ByteBuffer.allocateDirect((int) bytes);
    }
}
