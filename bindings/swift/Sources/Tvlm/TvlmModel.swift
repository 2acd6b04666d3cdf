import CTvlm
import Foundation

/// A model. It is opened once, in milliseconds, and may be used from anywhere; its conversations are `TvlmSession`s.
///
///     let model = try TvlmModel(contentsOf: TvlmWeights.url)
///     let chat = try model.session()
///     let photo = try await chat.image(cgImage)
///     for try await piece in chat.ask("What is on the table?", about: [photo]) {
///         print(piece, terminator: "")
///     }
///
/// The handle is never changed, and the library allows several threads to use one.
public final class TvlmModel: @unchecked Sendable {
    /// How a weight file is opened.
    public struct Options: Sendable {
        /// What is compared with checksums.
        public enum Verify: UInt32, Sendable {
            /// Everything if the file is small, else its header.
            case auto = 0
            case header = 1
            case full = 2
        }

        /// Where the weights are.
        public enum Residence: UInt32, Sendable {
            /// In private memory if the file is small, else mapped.
            case auto = 0
            /// In a mapped file, of which the system may drop pages: they do not count for the limit of an app's memory.
            case mapped = 1
            /// In private memory.
            case copied = 2
        }

        /// Threads of sessions that do not say; 0: all processors, of phones the fast ones.
        public var threads: UInt32 = 0
        public var verify = Verify.auto
        public var residence = Residence.auto
        /// Name of an instruction-set level; nil: the best that this processor has.
        public var level: String?
        /// Encodes pictures instead of the processor; nil: none. The model keeps it.
        public var delegate: TvlmDelegate?

        public init() {}
    }

    /// A side that pictures can have.
    public struct Side: Sendable {
        /// Pixels on each side of the square that a picture becomes.
        public let side: Int
        /// Positions that it takes.
        public let tokens: Int
    }

    /// What is known about a model.
    public struct Info: Sendable {
        /// The largest side.
        public let imageSide: Int
        /// Positions that a picture of it takes.
        public let tokensPerImage: Int
        /// All sides, from small to large.
        public let sides: [Side]
        /// Positions of a conversation, pictures and answers included.
        public let maxContext: Int
        /// Most tokens that are guessed and verified together.
        public let maxSpeculation: Int
        /// Bytes of a session, shared by its threads.
        public let arenaBytes: UInt64
        /// Bytes of each thread of a session.
        public let scratchBytesPerThread: UInt64
        /// Bytes of the weight file.
        public let weightsBytes: UInt64
        /// Instruction-set level in use.
        public let level: String
    }

    /// A `tvlm_model`.
    let handle: OpaquePointer
    /// The library calls it for as long as the model is open.
    private let delegate: HeldDelegate?
    /// What is known about this model.
    public let info: Info

    /// Opens the weight file that belongs to this library.
    ///
    /// Throws `TvlmError`: the file cannot be read, is damaged or is of another build, or the processor lacks something.
    public init(contentsOf url: URL, options: Options = Options()) throws {
        guard url.isFileURL else {
            throw TvlmError(code: .argument, message: "\(url): is no file; download it first")
        }
        let held = options.delegate.map(HeldDelegate.init)
        let opened = try TvlmModel.open(url.path, options, held)
        handle = opened
        delegate = held
        do {
            info = try TvlmModel.info(of: opened)
        } catch {
            tvlm_model_close(opened, nil)
            throw error
        }
    }

    deinit {
        tvlm_model_close(handle, nil)
    }

    /// Begins a conversation: its memory and its threads.
    public func session(_ options: TvlmSession.Options = TvlmSession.Options()) throws -> TvlmSession {
        try TvlmSession(self, options)
    }

    private static func open(_ path: String, _ options: Options, _ delegate: HeldDelegate?) throws -> OpaquePointer {
        var given = tvlm_open_options()
        given.size = MemoryLayout<tvlm_open_options>.stride
        given.threads = options.threads
        given.verify = options.verify.rawValue
        given.residence = options.residence.rawValue
        var model: OpaquePointer?
        func attempt(_ level: UnsafePointer<CChar>?) throws {
            given.level = level
            guard let delegate = delegate else {
                return try TvlmError.check { tvlm_model_open(path, &given, &model, $0) }
            }
            try delegate.with { pointer in
                given.delegate = pointer
                try TvlmError.check { tvlm_model_open(path, &given, &model, $0) }
            }
        }
        if let level = options.level {
            try level.withCString { try attempt($0) }
        } else {
            try attempt(nil)
        }
        guard let opened = model else {
            throw TvlmError(code: .bug, message: "no model and no error")
        }
        return opened
    }

    private static func info(of model: OpaquePointer) throws -> Info {
        var info = tvlm_model_info()
        info.size = MemoryLayout<tvlm_model_info>.stride
        try TvlmError.check { tvlm_model_info_get(model, &info, $0) }
        return Info(
            imageSide: Int(info.image_side),
            tokensPerImage: Int(info.tokens_per_image),
            sides: UnsafeBufferPointer(start: info.sides, count: info.side_count).map {
                Side(side: Int($0.side), tokens: Int($0.tokens))
            },
            maxContext: Int(info.max_context),
            maxSpeculation: Int(info.max_speculation),
            arenaBytes: info.arena_bytes,
            scratchBytesPerThread: info.scratch_bytes_per_thread,
            weightsBytes: info.weights_bytes,
            level: info.level.map { String(cString: $0) } ?? ""
        )
    }
}
