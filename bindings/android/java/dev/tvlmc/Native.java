package dev.tvlmc;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * The functions of the native library. Each returns 0 or a code of {@link TvlmException} and then fills {@code error} with a
 * message, UTF-8 with a zero byte behind it; so are texts that are given.
 */
final class Native {
    /** Who gets the pieces of an answer. */
    interface Pieces {
        /** A piece, in UTF-8; something else than 0 ends the answer. */
        int piece(byte[] text);
    }

    /** A function that is called with room for a message. */
    interface Call {
        int with(byte[] error);
    }

    private static final int MESSAGE_BYTES = 1012;

    static {
        System.loadLibrary("tvlm");
    }

    private Native() {}

    static native int modelOpen(
            byte[] path, int threads, int verify, int residence, byte[] level, long[] model, byte[] error);

    static native int modelInfo(long model, long[] info, byte[] level, byte[] error);

    static native int modelTrim(long model, long[] bytes, byte[] error);

    static native int modelClose(long model, byte[] error);

    static native int sessionOpen(
            long model,
            int threads,
            int maxNewTokens,
            float temperature,
            int topK,
            float topP,
            float repetitionPenalty,
            long seed,
            int speculation,
            int affinity,
            long[] session,
            byte[] error);

    static native int sessionConfigure(
            long session,
            int threads,
            int maxNewTokens,
            float temperature,
            int topK,
            float topP,
            float repetitionPenalty,
            long seed,
            int speculation,
            int affinity,
            byte[] error);

    static native int sessionEncode(
            long session,
            ByteBuffer pixels,
            int width,
            int height,
            int stride,
            int format,
            int side,
            long[] image,
            byte[] error);

    static native int sessionAsk(
            long session, long[] images, byte[] question, Pieces pieces, long[] result, byte[] error);

    static native int sessionContinue(long session, Pieces pieces, long[] result, byte[] error);

    static native int sessionPause(long session, byte[] error);

    static native int sessionResume(long session, byte[] error);

    static native int sessionPressure(long session, int pressure, byte[] error);

    static native int sessionSave(long session, byte[] path, byte[] error);

    static native int sessionRestore(long session, byte[] path, byte[] error);

    static native int sessionTrim(long session, long[] bytes, byte[] error);

    static native int sessionInfo(long session, long[] info, byte[] error);

    static native int sessionCancel(long session, byte[] error);

    static native int sessionReset(long session, byte[] error);

    static native int sessionClose(long session, byte[] error);

    static native int imageClose(long image, byte[] error);

    /** Makes an exception of what a function says went wrong. */
    static void check(Call call) throws TvlmException {
        byte[] error = new byte[MESSAGE_BYTES];
        int code = call.with(error);
        if (code != 0) {
            throw new TvlmException(code, text(error));
        }
    }

    /** A text that ends with a zero byte or with the array. */
    static String text(byte[] bytes) {
        int length = 0;
        while (length < bytes.length && bytes[length] != 0) {
            length++;
        }
        return new String(bytes, 0, length, StandardCharsets.UTF_8);
    }

    /** A text as it is given to the library, or null. */
    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }
}
