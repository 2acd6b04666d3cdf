package dev.tvlmc

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.awaitClose
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.callbackFlow
import kotlinx.coroutines.isActive
import kotlinx.coroutines.launch

/**
 * Asks when it is collected, off the collecting thread, and gives the answer piece by piece. Whoever stops collecting stops
 * the answer. Fails with [TvlmException].
 */
fun Session.answer(question: String, vararg images: Image): Flow<String> = pieces { ask(question, images, it) }

/** As [answer], the rest of an answer that ended before the model ended it; see [Session.goOn]. */
fun Session.rest(): Flow<String> = pieces { goOn(it) }

private fun Session.pieces(work: Session.(OnText) -> Answer): Flow<String> {
    val session = this
    return callbackFlow {
            launch(Dispatchers.Default) {
                try {
                    session.work { piece -> isActive && channel.trySend(piece).isSuccess }
                    channel.close()
                } catch (e: TvlmException) {
                    channel.close(e)
                }
            }
            // What was launched is part of the flow, which ends after it.
            awaitClose { session.cancel() }
        }
        // No piece is lost when the collector is slower than the model.
        .buffer(Channel.UNLIMITED)
}
