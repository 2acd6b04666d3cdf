import CTvlm
import Foundation

#if canImport(UIKit)
    import UIKit
#endif

/// Keeps sessions in step with the device: its heat and its low-power mode become their pressure, and they give memory back when
/// the system warns. It watches for as long as it lives, and keeps its sessions alive.
///
///     let phone = TvlmPhone(watching: [chat])
public final class TvlmPhone: @unchecked Sendable {
    private let sessions: [TvlmSession]
    /// Set once.
    private var observers: [NSObjectProtocol] = []

    public init(watching sessions: [TvlmSession]) {
        self.sessions = sessions
        observe(ProcessInfo.thermalStateDidChangeNotification) { $0.update() }
        observe(.NSProcessInfoPowerStateDidChange) { $0.update() }
        #if canImport(UIKit) && !os(watchOS)
            observe(UIApplication.didReceiveMemoryWarningNotification) { $0.trim() }
        #endif
        update()
    }

    deinit {
        for observer in observers {
            NotificationCenter.default.removeObserver(observer)
        }
        for session in sessions {
            session.tell(.nominal)
        }
    }

    private func observe(_ name: Notification.Name, _ act: @escaping @Sendable (TvlmPhone) -> Void) {
        let center = NotificationCenter.default
        observers.append(
            center.addObserver(forName: name, object: nil, queue: nil) { [weak self] _ in
                if let phone = self {
                    act(phone)
                }
            })
    }

    private func update() {
        let process = ProcessInfo.processInfo
        var pressure = TvlmSession.Pressure(process.thermalState)
        if process.isLowPowerModeEnabled {
            pressure = max(pressure, .fair)
        }
        for session in sessions {
            session.tell(pressure)
        }
    }

    /// After what the sessions do now, and without anybody waiting for it.
    private func trim() {
        for session in sessions {
            Task {
                try? await session.trim()
                session.model.trim()
            }
        }
    }
}

extension TvlmModel {
    /// Who encodes pictures besides the processor.
    public struct Delegation: Sendable {
        /// Of who is asked to encode the next picture; nil: the processor does it.
        public let name: String?
        /// Why the processor first did what a delegate was to do; nil: it never did.
        public let reason: String?
        /// Pictures that the delegate encoded.
        public let encoded: UInt64
        /// Pictures that it was asked for and that the processor encoded.
        public let fellBack: UInt64
    }

    /// What became of the delegate by now.
    public func delegation() throws -> Delegation {
        var info = tvlm_model_info()
        info.size = MemoryLayout<tvlm_model_info>.stride
        try TvlmError.check { tvlm_model_info_get(handle, &info, $0) }
        return Delegation(
            name: info.delegate.map { String(cString: $0) },
            reason: info.delegate_reason.map { String(cString: $0) },
            encoded: info.delegate_encoded,
            fellBack: info.delegate_fell_back
        )
    }

    /// Gives pages of mapped weights back to the system, which reads them again as they are needed; sessions may work meanwhile.
    /// Bytes that were in memory.
    @discardableResult
    public func trim() -> UInt64 {
        var bytes: UInt64 = 0
        // A model that is open can do nothing wrong here.
        tvlm_model_trim(handle, &bytes, nil)
        return bytes
    }
}
