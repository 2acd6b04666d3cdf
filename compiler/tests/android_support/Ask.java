import dev.tvlmc.Answer;
import dev.tvlmc.Image;
import dev.tvlmc.Model;
import dev.tvlmc.OnText;
import dev.tvlmc.Pressure;
import dev.tvlmc.Session;
import dev.tvlmc.TvlmException;
import java.io.File;
import java.nio.ByteBuffer;
import java.nio.file.Files;

/** {@code Ask WEIGHTS RGB WIDTH HEIGHT QUESTION}: prints the answer after checking everything around it. */
public final class Ask {
    interface Work {
        void run() throws TvlmException;
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    /** The code of what work throws, and that its message has a word. */
    static void refused(int code, String word, Work work) {
        try {
            work.run();
        } catch (TvlmException e) {
            check(e.code() == code && e.getMessage().contains(word), code + " wanted, not " + e.code() + ": " + e.getMessage());
            return;
        }
        throw new AssertionError(word + " was not refused");
    }

    /** What an app on a phone does besides asking. */
    static void manners(Session chat, String question, Image photo) throws Exception {
        Session.Info info = chat.info();
        check(info.threads == 2 && info.activeThreads == 2 && info.imageSide > 0 && info.bound == Session.Info.BOUND_FREE, "what it does");
        chat.pressure(Pressure.SERIOUS);
        check(chat.info().activeThreads == 1, "fewer threads under pressure");
        chat.pressure(Pressure.NOMINAL);
        try {
            chat.pressure(4);
            throw new AssertionError("a pressure of 4");
        } catch (IllegalArgumentException e) {
            check(e.getMessage().contains("4"), e.getMessage());
        }
        int[] statuses = {-1, 0, 1, 2, 3, 4, 5, 6, 7};
        int[] pressures = {0, 0, 1, 1, 2, 3, 3, 3, 3};
        for (int i = 0; i < statuses.length; i++) {
            check(Pressure.ofThermalStatus(statuses[i]) == pressures[i], "status " + statuses[i]);
        }

        // An answer is paused by its listener, and goes on when another thread says so.
        chat.reset();
        String whole = chat.ask(question, new Image[] {photo}, null).text;
        boolean[] resumed = new boolean[1];
        Thread later = new Thread(() -> {
            try {
                Thread.sleep(100);
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
            resumed[0] = true;
            chat.resume();
        });
        boolean[] paused = new boolean[1];
        chat.reset();
        Answer waited = chat.ask(question, new Image[] {photo}, piece -> {
            if (!paused[0]) {
                paused[0] = true;
                chat.pause();
                later.start();
            }
            return true;
        });
        check(resumed[0] && waited.text.equals(whole), "a pause changes nothing");
        later.join();

        // An answer is stopped after its first piece, saved, taken up again and finished.
        File file = File.createTempFile("chat", null);
        chat.reset();
        String first = chat.ask(question, new Image[] {photo}, piece -> false).text;
        chat.save(file);
        chat.reset();
        refused(TvlmException.ARGUMENT, "no answer", () -> chat.goOn(null));
        chat.restore(file);
        check(chat.trim() >= 0, "memory that is given back");
        StringBuilder pieces = new StringBuilder();
        Answer rest = chat.goOn(piece -> pieces.append(piece).length() >= 0);
        check(rest.text.contentEquals(pieces) && (first + rest.text).startsWith(whole), "the rest of an answer: " + first + "|" + rest.text);
        Files.write(file.toPath(), new byte[] {'n', 'o'});
        refused(TvlmException.SAVED_FOREIGN, file.getPath(), () -> chat.restore(file));
        Files.delete(file.toPath());
        refused(TvlmException.FILE, file.getPath(), () -> chat.restore(file));
        refused(TvlmException.FILE, "no-such-folder", () -> chat.save(new File("no-such-folder/chat")));
        chat.reset();
    }

    public static void main(String[] arguments) throws Exception {
        File weights = new File(arguments[0]);
        byte[] rgb = Files.readAllBytes(new File(arguments[1]).toPath());
        int width = Integer.parseInt(arguments[2]);
        int height = Integer.parseInt(arguments[3]);
        String question = arguments[4];

        refused(TvlmException.FILE, "no-such-file", () -> new Model(new File("no-such-file")));
        refused(TvlmException.NOT_WEIGHTS, arguments[1], () -> new Model(new File(arguments[1])));
        Model.Options foreign = new Model.Options();
        foreign.level = "größer";
        refused(TvlmException.UNKNOWN_LEVEL, "größer", () -> new Model(weights, foreign));
        Model.Options negative = new Model.Options();
        negative.threads = -1;
        refused(TvlmException.ARGUMENT, "threads", () -> new Model(weights, negative));

        Model model = new Model(weights);
        Model.Info info = model.info();
        check(info.weightsBytes == weights.length(), "the weight file's size");
        check(info.imageSide > 0 && info.maxContext > info.tokensPerImage && !info.level.isEmpty(), "the model's info");
        int last = info.sides.length - 1;
        check(info.sides[last] == info.imageSide && info.tokensOfSides[last] == info.tokensPerImage, "the model's sides");
        Session.Options options = new Session.Options();
        options.threads = 2;
        options.maxNewTokens = 12;
        Session chat = model.session(options);
        Session other = model.session(options);
        check(model.trim() == 0, "small weights are in private memory");
        model.close();
        model.close();

        // Rows with gaps in direct memory, and without in Java's, are one picture.
        int stride = 4 * width + 8;
        ByteBuffer gaps = ByteBuffer.allocateDirect(4 + stride * height);
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                int from = 3 * (y * width + x);
                gaps.position(4 + y * stride + 4 * x);
                gaps.put(new byte[] {rgb[from + 2], rgb[from + 1], rgb[from], 9});
            }
        }
        gaps.position(4);
        Image photo = chat.encode(gaps, width, height, stride, Session.BGRA8);
        Image again = other.encode(ByteBuffer.wrap(rgb), width, height, 0, Session.RGB8);
        check(gaps.position() == 4, "the buffer stays as it was");
        refused(TvlmException.ARGUMENT, "pixels", () -> chat.encode(gaps, width, height + 1, stride, Session.BGRA8));
        refused(TvlmException.ARGUMENT, "format", () -> chat.encode(gaps, width, height, stride, 9));
        refused(TvlmException.ARGUMENT, "side: 7 is not", () -> chat.encode(gaps, width, height, stride, Session.BGRA8, 7));
        refused(TvlmException.IMAGE, "0", () -> chat.encode(gaps, 0, height, stride, Session.BGRA8));
        refused(TvlmException.ARGUMENT, "U+0000", () -> chat.ask("a\0b"));

        StringBuilder pieces = new StringBuilder();
        Answer answer = chat.ask(question, new Image[] {photo}, piece -> pieces.append(piece).length() >= 0);
        check(answer.text.contentEquals(pieces), "pieces are the answer");
        check(answer.tokens > 0 && answer.position > answer.prefillRows && answer.prefillMillis > 0, "what the answer took");
        check(answer.stop == Answer.MAX_TOKENS || answer.stop == Answer.END_OF_TEXT, "why the answer ended");
        check(other.ask(question, new Image[] {again}, null).text.equals(answer.text), "another session, the same answer");

        // What a callback throws, asks, stops and closes.
        IllegalStateException thrown = new IllegalStateException("of the callback");
        chat.reset();
        try {
            chat.ask(question, new Image[] {photo}, piece -> { throw thrown; });
            throw new AssertionError("the callback's exception is gone");
        } catch (IllegalStateException e) {
            check(e == thrown, "the callback's own exception");
        }
        chat.reset();
        OnText stop = piece -> {
            refused(TvlmException.BUSY, "session", () -> chat.ask("And?"));
            return false;
        };
        check(chat.ask(question, new Image[] {photo}, stop).stop == Answer.CALLBACK, "the callback stops the answer");
        chat.reset();
        check(chat.ask(question, new Image[] {photo}, null).text.equals(answer.text), "a new conversation, the same answer");
        Answer closed = other.ask(question, new Image[] {again}, piece -> {
            again.close();
            other.close();
            return true;
        });
        check(closed.stop == Answer.CANCELLED, "closing ends the answer");
        try {
            other.ask("And?");
            throw new AssertionError("a closed session answers");
        } catch (IllegalStateException e) {
            check(e.getMessage().equals("Session is closed"), e.getMessage());
        }
        other.cancel();

        manners(chat, question, photo);

        options.maxNewTokens = 1;
        options.temperature = 1000;
        refused(TvlmException.ARGUMENT, "temperature", () -> chat.configure(options));
        options.temperature = 0;
        chat.configure(options);
        check(chat.ask("And?").tokens == 1, "options change");
        photo.close();
        chat.close();
        System.out.print(answer.text);
    }
}
