import CTvlm
import CoreGraphics
import CoreVideo
import Foundation

/// A conversation. Its work takes up to seconds and runs one after the other on a queue of its own, so that it blocks neither
/// the main thread nor the threads that Swift's tasks share.
///
/// Functions throw `TvlmError`, or `CancellationError` where their task was cancelled before they had a result.
public final class TvlmSession: @unchecked Sendable {
    /// How answers are made.
    public struct Options: Sendable {
        /// Threads of the session; 0: as the model was told. Not changed later.
        public var threads: UInt32 = 0
        /// Most tokens of an answer, the end token included.
        public var maxNewTokens: UInt32 = 256
        /// 0: the likeliest token each time; up to 100.
        public var temperature: Float = 0
        /// Only so many tokens can be drawn; 0: all.
        public var topK: UInt32 = 0
        /// Only tokens that reach this probability together; 1: all.
        public var topP: Float = 1
        /// 1: off; up to 100.
        public var repetitionPenalty: Float = 1
        /// Where the random numbers start.
        public var seed: UInt64 = 0
        /// Tokens guessed and verified together, which changes no answer; 0: as suits; -1: none.
        public var speculation: Int32 = 0
        /// Which processors threads run on. Not changed later.
        public var affinity = Affinity.free

        public init() {}

        /// As the library takes them.
        var given: tvlm_session_options {
            var given = tvlm_session_options()
            given.size = MemoryLayout<tvlm_session_options>.stride
            given.threads = threads
            given.max_new_tokens = maxNewTokens
            given.temperature = temperature
            given.top_k = topK
            given.top_p = topP
            given.repetition_penalty = repetitionPenalty
            given.seed = seed
            given.speculation = speculation
            given.affinity = affinity.rawValue
            return given
        }
    }

    /// Which processors threads run on.
    public enum Affinity: UInt32, Sendable {
        /// Any.
        case free = 0
        /// Those threads that the session has besides the calling one get the class "user-initiated", and so the fast
        /// processors.
        case performance = 1
    }

    /// What a session does, and with what.
    public struct Info: Sendable {
        /// What came of an affinity.
        public enum Bound: UInt32, Sendable {
            /// None was asked for.
            case free = 0
            /// Threads run on some processors and no others; not on Apple's systems.
            case processors = 1
            /// Threads have the class.
            case userInitiated = 2
            /// The system refused.
            case refused = 3
        }

        /// Threads, the calling one included.
        public let threads: Int
        /// Those that work under the present pressure.
        public let activeThreads: Int
        /// Pixels on each side of the square that the next picture becomes.
        public let imageSide: Int
        /// Positions of the conversation.
        public let position: Int
        public let bound: Bound
    }

    /// How much the device wants to be left alone: 3/4, 1/2 and one of the threads work, smaller pictures from `serious` on
    /// where the model has several sides, rests between tokens when `critical`. Threads and rests change no answer; a picture that is
    /// encoded smaller shows less: pass a `side` where that must not be.
    public enum Pressure: UInt32, Sendable, Comparable {
        case nominal = 0
        case fair = 1
        case serious = 2
        case critical = 3

        /// Of `ProcessInfo.thermalState`.
        public init(_ state: ProcessInfo.ThermalState) {
            switch state {
            case .nominal: self = .nominal
            case .fair: self = .fair
            case .serious: self = .serious
            case .critical: self = .critical
            @unknown default: self = .critical
            }
        }

        public static func < (a: Pressure, b: Pressure) -> Bool {
            a.rawValue < b.rawValue
        }
    }

    /// The model that answers.
    public let model: TvlmModel

    /// A `tvlm_session`: used on `queue` alone, but for what any thread may tell it.
    private let handle: OpaquePointer
    private let queue = DispatchQueue(label: "dev.tvlmc.session", qos: .userInitiated)

    init(_ model: TvlmModel, _ options: Options) throws {
        var given = options.given
        var session: OpaquePointer?
        try TvlmError.check { tvlm_session_open(model.handle, &given, &session, $0) }
        guard let opened = session else {
            throw TvlmError(code: .bug, message: "no session and no error")
        }
        self.model = model
        handle = opened
    }

    // Work that waits or runs holds the session, so there is none by now.
    deinit {
        tvlm_session_close(handle, nil)
    }

    /// Encodes a picture, once: it can be asked about in all sessions of the model.
    ///
    /// It is drawn on white where it is transparent. A `CGImage` knows nothing of the orientation of a photo: give the
    /// `UIImage` that has it. `side` is one of `model.info.sides`, 0 the largest that `tell(_:)` leaves: a
    /// smaller one is encoded sooner, takes fewer positions and shows less.
    public func image(_ image: CGImage, side: Int = 0) async throws -> TvlmImage {
        let image = Unchecked(value: image)
        return try await perform { session, _ in
            try Pixels.with(image.value) { try session.encode(&$0, side) }
        }
    }

    /// Encodes the picture of a camera or a video, which nobody may change meanwhile. The formats 32BGRA, 420f and 420v, those of
    /// cameras, are taken as they lie in memory.
    public func image(_ buffer: CVPixelBuffer, side: Int = 0) async throws -> TvlmImage {
        let buffer = Unchecked(value: buffer)
        return try await perform { session, _ in
            try Pixels.with(buffer.value) { try session.encode(&$0, side) }
        }
    }

    /// Asks about pictures, or none, and goes on with the conversation: the answer piece by piece, as it is made.
    ///
    /// The question waits until what was asked before is answered. Whoever stops iterating, or whose task is cancelled, stops
    /// the answer.
    public func ask(_ question: String, about images: [TvlmImage] = []) -> AsyncThrowingStream<String, Error> {
        stream { try self.answer(question, images, $0) }
    }

    /// As `ask`, the rest of an answer that ended before the model ended it: it was stopped, was cut off at its longest, or the
    /// conversation was saved before its end. Throws `TvlmError` of code `argument` if there is none.
    public func rest() -> AsyncThrowingStream<String, Error> {
        stream { try self.rest($0) }
    }

    private func stream(
        _ work: @escaping @Sendable (Turn) throws -> TvlmAnswer
    ) -> AsyncThrowingStream<String, Error> {
        AsyncThrowingStream { continuation in
            let turn = Turn(handle) { _ = continuation.yield($0) }
            continuation.onTermination = { termination in
                if case .cancelled = termination {
                    turn.cancel()
                }
            }
            queue.async {
                do {
                    _ = try turn.take { try work(turn) }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
    }

    /// As `ask`, for who wants the whole answer and what it took. A cancelled task gets what was said by then.
    public func answer(_ question: String, about images: [TvlmImage] = []) async throws -> TvlmAnswer {
        try await perform { session, turn in try session.answer(question, images, turn) }
    }

    /// Other options from the next answer on.
    public func configure(_ options: Options) async throws {
        try await perform { session, _ in
            var given = options.given
            try TvlmError.check { tvlm_session_configure(session.handle, &given, $0) }
        }
    }

    /// Begins a new conversation; pictures stay.
    public func reset() async throws {
        try await perform { session, _ in
            try TvlmError.check { tvlm_session_reset(session.handle, $0) }
        }
    }

    /// Lets what this session does wait after its current step, with all threads asleep; work that begins meanwhile waits too,
    /// until `resume`. From any thread; what is paused can be cancelled. iOS ends apps that work in the background.
    public func pause() {
        tvlm_session_pause(handle, nil)
    }

    /// Lets it go on, from any thread.
    public func resume() {
        tvlm_session_resume(handle, nil)
    }

    /// Tells how the device is, from any thread; holds until something else is told. `TvlmPhone` does it by itself.
    public func tell(_ pressure: Pressure) {
        tvlm_session_pressure(handle, pressure.rawValue, nil)
    }

    /// Writes the conversation to a file, which is complete or as it was before. It holds what was said.
    public func save(to url: URL) async throws {
        let path = try TvlmSession.path(url)
        try await perform { session, _ in
            try TvlmError.check { tvlm_session_save(session.handle, path, $0) }
        }
    }

    /// Takes up a conversation that a session of the same library and weights saved, also in another process: it goes on with
    /// the same tokens. Options of sampling are part of it. After a failure the conversation is what it was.
    public func restore(from url: URL) async throws {
        let path = try TvlmSession.path(url)
        try await perform { session, _ in
            try TvlmError.check { tvlm_session_restore(session.handle, path, $0) }
        }
    }

    /// Gives back memory that the conversation does not need, when what was asked before is done; the next answer takes longer
    /// to begin. Bytes that were in memory.
    @discardableResult
    public func trim() async throws -> UInt64 {
        try await perform { session, _ in
            var bytes: UInt64 = 0
            try TvlmError.check { tvlm_session_trim(session.handle, &bytes, $0) }
            return bytes
        }
    }

    /// What this session does, when what was asked before is done.
    public func info() async throws -> Info {
        try await perform { session, _ in
            var info = tvlm_session_info()
            info.size = MemoryLayout<tvlm_session_info>.stride
            try TvlmError.check { tvlm_session_info_get(session.handle, &info, $0) }
            return Info(
                threads: Int(info.threads),
                activeThreads: Int(info.active_threads),
                imageSide: Int(info.image_side),
                position: Int(info.position),
                bound: Info.Bound(rawValue: info.bound) ?? .refused
            )
        }
    }

    private static func path(_ url: URL) throws -> String {
        guard url.isFileURL else {
            throw TvlmError(code: .argument, message: "\(url): is no file")
        }
        return url.path
    }

    /// Runs `work` on the queue. Cancelling the task cancels it, also while it waits.
    private func perform<T: Sendable>(_ work: @escaping @Sendable (TvlmSession, Turn) throws -> T) async throws -> T {
        let turn = Turn(handle)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<T, Error>) in
                self.queue.async {
                    continuation.resume(with: Result { try turn.take { try work(self, turn) } })
                }
            }
        } onCancel: {
            turn.cancel()
        }
    }

    private func encode(_ pixels: inout tvlm_pixels, _ side: Int) throws -> TvlmImage {
        // What does not fit is no side of a model, which the library says.
        pixels.side = UInt32(exactly: side) ?? UInt32.max
        var image: OpaquePointer?
        try TvlmError.check { tvlm_session_encode(handle, &pixels, &image, $0) }
        guard let encoded = image else {
            throw TvlmError(code: .bug, message: "no image and no error")
        }
        return TvlmImage(encoded)
    }

    private func answer(_ question: String, _ images: [TvlmImage], _ turn: Turn) throws -> TvlmAnswer {
        if question.utf8.contains(0) {
            throw TvlmError(code: .argument, message: "question: has a character U+0000, which ends texts")
        }
        let handles: [OpaquePointer?] = images.map { $0.handle }
        return try withExtendedLifetime(images) {
            try handles.withUnsafeBufferPointer { pointers in
                try told(turn) { context, result, error in
                    tvlm_session_ask(
                        handle, pointers.baseAddress, pointers.count, question, TvlmSession.onText, context, result, error)
                }
            }
        }
    }

    private func rest(_ turn: Turn) throws -> TvlmAnswer {
        try told(turn) { context, result, error in
            tvlm_session_continue(handle, TvlmSession.onText, context, result, error)
        }
    }

    /// Gives a turn the pieces of an answer that `call` makes.
    private func told(
        _ turn: Turn,
        _ call: (UnsafeMutableRawPointer, UnsafeMutablePointer<tvlm_result>, UnsafeMutablePointer<tvlm_error>) -> Int32
    ) throws -> TvlmAnswer {
        var result = tvlm_result()
        result.size = MemoryLayout<tvlm_result>.stride
        // The turn is used until the call returns.
        try withExtendedLifetime(turn) {
            let context = Unmanaged.passUnretained(turn).toOpaque()
            try TvlmError.check { call(context, &result, $0) }
        }
        return TvlmAnswer(text: turn.text, result)
    }

    private static let onText: tvlm_on_text = { context, text, bytes in
        guard let context = context, let text = text else {
            return 1
        }
        let turn = Unmanaged<Turn>.fromOpaque(context).takeUnretainedValue()
        let utf8 = UnsafeRawBufferPointer(start: text, count: bytes)
        return turn.give(String(decoding: utf8, as: UTF8.self)) ? 0 : 1
    }
}

/// An answer, and what it took.
public struct TvlmAnswer: Sendable {
    /// Why an answer ended.
    public enum Stop: UInt32, Sendable {
        case none = 0
        case endOfText = 1
        case maxTokens = 2
        case contextFull = 3
        case cancelled = 4
        /// As `cancelled`, between two pieces.
        case callback = 5
    }

    public let text: String
    public let stop: Stop
    /// Tokens of the answer, the end token included.
    public let tokens: Int
    /// Positions that were computed for the question; what the session held already is not.
    public let prefillRows: Int
    /// Positions of the conversation by now.
    public let position: Int
    /// Milliseconds of reading the question.
    public let prefillMilliseconds: Double
    /// Milliseconds of all tokens after the first one, pauses included.
    public let decodeMilliseconds: Double
    /// Milliseconds of rests between them under critical pressure, which `decodeMilliseconds` leaves out.
    public let restedMilliseconds: Double

    init(text: String, _ result: tvlm_result) {
        self.text = text
        stop = Stop(rawValue: result.stop) ?? .none
        tokens = Int(result.tokens)
        prefillRows = Int(result.prefill_rows)
        position = Int(result.position)
        prefillMilliseconds = result.prefill_ms
        decodeMilliseconds = result.decode_ms
        restedMilliseconds = result.rested_ms
    }
}

/// One piece of work of a session, so that cancelling it never hits another one. The lock guards what changes.
private final class Turn: @unchecked Sendable {
    private let handle: OpaquePointer
    private let onText: (@Sendable (String) -> Void)?
    private let lock = NSLock()
    private var isCancelled = false
    private var isRunning = false
    private var said = ""

    init(_ handle: OpaquePointer, onText: (@Sendable (String) -> Void)? = nil) {
        self.handle = handle
        self.onText = onText
    }

    var text: String {
        lock.lock()
        defer { lock.unlock() }
        return said
    }

    /// Runs `work` unless it was cancelled before. The session lives meanwhile, as whoever calls this holds it.
    func take<T>(_ work: () throws -> T) throws -> T {
        try begin()
        defer { end() }
        do {
            return try work()
        } catch let error as TvlmError where error.code == .cancelled {
            throw CancellationError()
        }
    }

    func cancel() {
        lock.lock()
        defer { lock.unlock() }
        isCancelled = true
        // Never waits. While this runs the session is not closed.
        if isRunning {
            tvlm_session_cancel(handle, nil)
        }
    }

    /// Whether the answer goes on: a cancellation that came before the library began is noticed here.
    func give(_ piece: String) -> Bool {
        lock.lock()
        let goesOn = !isCancelled
        if goesOn {
            said += piece
        }
        lock.unlock()
        if goesOn {
            onText?(piece)
        }
        return goesOn
    }

    private func begin() throws {
        lock.lock()
        defer { lock.unlock() }
        if isCancelled {
            throw CancellationError()
        }
        isRunning = true
    }

    private func end() {
        lock.lock()
        isRunning = false
        lock.unlock()
    }
}

/// Something that Swift cannot know to be safe to hand over.
private struct Unchecked<T>: @unchecked Sendable {
    let value: T
}
