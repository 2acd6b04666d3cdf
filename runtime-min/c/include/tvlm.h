/* A FastVLM model compiled by tvlmc: questions about pictures, answered on this machine.
 *
 *     tvlm_error error = TVLM_ERROR_INIT;
 *     tvlm_model *model;
 *     tvlm_session *chat;
 *     if (tvlm_model_open("weights.tvlm", NULL, &model, &error)) { puts(error.message); return 1; }
 *     if (tvlm_session_open(model, NULL, &chat, &error)) ...
 *
 * Functions return 0 or one of tvlm_code, and fill the error that their last argument points to; NULL says that only the
 * number is wanted. An error's code is 0 after a success, and a new handle is NULL after a failure. Texts are UTF-8 and end with
 * a zero byte. Structs begin with their size: initialize them with the macro that is named like them; an error without a size is
 * left as it is. A result is filled by a success. A field that is 0 has its default, and fields named reserved are 0. What a
 * pointer argument points to is the caller's and may go when the function returns.
 *
 * A model may be used by several threads at once. A session works for one caller at a time: while it does, other calls with
 * it return TVLM_ERROR_BUSY, also those out of a callback, except for tvlm_session_cancel, _pause, _resume and _pressure; one
 * that works is not closed either: cancel, wait until the other call has returned, then close. Handles are closed once, and
 * closing NULL does nothing; one that was closed before, or of another kind, is not found out. A model may be closed while
 * sessions still use it, an image whenever no question about it is being answered.
 */
#ifndef TVLM_H
#define TVLM_H

#include <stddef.h>
#include <stdint.h>

/* Of this header; tvlm_version tells the library's. */
#define TVLM_VERSION_MAJOR 0
#define TVLM_VERSION_MINOR 1
#define TVLM_VERSION_PATCH 0

#if defined(_WIN32)
#define TVLM_API
#else
#define TVLM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tvlm_model tvlm_model;
typedef struct tvlm_session tvlm_session;
typedef struct tvlm_image tvlm_image;

/* What is wrong. Numbers do not change from version to version; there may be new ones. */
typedef enum tvlm_code {
  TVLM_OK = 0,
  TVLM_ERROR_FILE = 1,                /* The system refused a file. */
  TVLM_ERROR_WEIGHTS_TRUNCATED = 2,   /* The weight file ends early: download again. */
  TVLM_ERROR_WEIGHTS_OVERLONG = 3,    /* It goes on after its end. */
  TVLM_ERROR_NOT_WEIGHTS = 4,         /* It is some other file. */
  TVLM_ERROR_WEIGHTS_FORMAT = 5,      /* Of a version that this library does not read. */
  TVLM_ERROR_WEIGHTS_DAMAGED = 6,     /* A checksum differs. */
  TVLM_ERROR_WEIGHTS_WRONG_BUILD = 7, /* The weights of another library. */
  TVLM_ERROR_WEIGHTS_SECTION = 8,     /* A part is missing or impossible. */
  TVLM_ERROR_TOKENIZER = 9,           /* The tokenizer's tables contradict themselves. */
  TVLM_ERROR_CPU = 10,                /* The processor lacks what the code needs. */
  TVLM_ERROR_UNKNOWN_LEVEL = 11,      /* No such instruction-set level in this library. */
  TVLM_ERROR_OUT_OF_MEMORY = 12,
  TVLM_ERROR_IMAGE = 13,              /* A picture that cannot be used. */
  TVLM_ERROR_PROMPT_TOO_LONG = 14,    /* The conversation would not fit. */
  TVLM_ERROR_EMPTY_PROMPT = 15,
  TVLM_ERROR_TOKEN_OUT_OF_RANGE = 16,
  TVLM_ERROR_ARGUMENT = 17,           /* NULL where that is not allowed, or a value out of range. */
  TVLM_ERROR_CANCELLED = 18,          /* tvlm_session_cancel, while a picture was encoded; an answer ends with TVLM_STOP_CANCELLED. */
  TVLM_ERROR_POISONED = 19,           /* A thread failed: open a new session. */
  TVLM_ERROR_PROGRAM = 20,            /* The library contradicts itself: a bug. */
  TVLM_ERROR_BUSY = 21,               /* The session works for another caller. */
  TVLM_ERROR_BUG = 22,                /* Worth a report. */
  TVLM_ERROR_SAVED_DAMAGED = 23,      /* A saved conversation that is cut short or changed. */
  TVLM_ERROR_SAVED_FOREIGN = 24       /* No saved conversation of this model and build. */
} tvlm_code;

typedef struct tvlm_error {
  size_t size;
  int32_t code;
  char message[1012]; /* What was found, what was expected, what to do. */
} tvlm_error;
#define TVLM_ERROR_INIT {sizeof(tvlm_error), 0, {0}}

enum { TVLM_VERIFY_AUTO = 0, TVLM_VERIFY_HEADER = 1, TVLM_VERIFY_FULL = 2 };
enum { TVLM_RESIDENCE_AUTO = 0, TVLM_RESIDENCE_MAPPED = 1, TVLM_RESIDENCE_COPIED = 2 };

/* An app's own code that encodes pictures in place of the processor, for tvlm_open_options.
 *
 * `vision` makes of rgb, [side, side, 3]: red, green, blue, 0 to 255, the upper row first, the rows [tokens, hidden], all of
 * them, as floats. A return value other than 0 has the processor encode this picture; so have rows that are not finite, after
 * which it is not called again. It is called by the thread that called tvlm_session_encode, while that session is busy; by
 * several threads at once where several sessions encode. It calls no function of this library with the same session but
 * tvlm_session_cancel, _pause, _resume and _pressure. The name and this struct may go when tvlm_model_open returns; `context`
 * and the function live until the model and all its sessions are closed. */
typedef struct tvlm_delegate {
  size_t size;
  const char *name; /* In a few letters, for people; not NULL. */
  void *context;    /* The first argument of vision. */
  int32_t (*vision)(void *context, const uint8_t *rgb, uint32_t side, float *rows, uint32_t tokens, uint32_t hidden);
} tvlm_delegate;
#define TVLM_DELEGATE_INIT {sizeof(tvlm_delegate), NULL, NULL, NULL}

typedef struct tvlm_open_options {
  size_t size;
  uint32_t threads;   /* Of sessions that do not say; 0: all processors, of phones the fast ones. */
  uint32_t verify;    /* TVLM_VERIFY_*: what is compared with its checksum. AUTO: files below 256 MB whole, of others the header. */
  uint32_t residence; /* TVLM_RESIDENCE_*: where the weights are. AUTO: files below 256 MB in private memory, others mapped. */
  uint32_t reserved;
  const char *level;  /* Instruction-set level, as the README lists them; NULL: the best that this processor has. */
  const tvlm_delegate *delegate; /* Who encodes pictures; NULL: the processor. */
} tvlm_open_options;
#define TVLM_OPEN_OPTIONS_INIT {sizeof(tvlm_open_options), 0, 0, 0, 0, NULL, NULL}

/* A side that pictures can have. */
typedef struct tvlm_side {
  uint32_t side;   /* Pixels on each side of the square that a picture becomes. */
  uint32_t tokens; /* Positions that it takes. */
} tvlm_side;

typedef struct tvlm_model_info {
  size_t size;
  uint32_t image_side;       /* The largest side. */
  uint32_t tokens_per_image; /* Positions that a picture of it takes. */
  uint32_t max_context;      /* Positions of a conversation, pictures and answers included. */
  uint32_t max_speculation;  /* Most tokens that are guessed and verified together. */
  uint64_t arena_bytes;      /* Memory of a session, shared by its threads. */
  uint64_t scratch_bytes_per_thread;
  uint64_t weights_bytes;    /* Of the weight file. */
  const char *level;         /* Instruction-set level in use; lives as long as the handle, as the texts and sides below. */
  const tvlm_side *sides;    /* All sides, from small to large. */
  size_t side_count;
  const char *delegate;      /* Name of who is asked to encode the next picture; NULL: the processor. */
  const char *delegate_reason; /* Why a delegate is asked no more; while it is, why the processor first did its work.
                                  NULL: it never did. */
  uint64_t delegate_encoded;   /* Pictures that the delegate encoded. */
  uint64_t delegate_fell_back; /* Pictures that it was asked for and that the processor encoded. */
} tvlm_model_info;
#define TVLM_MODEL_INFO_INIT {sizeof(tvlm_model_info), 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 0, NULL, NULL, 0, 0}

enum { TVLM_AFFINITY_FREE = 0, TVLM_AFFINITY_PERFORMANCE = 1 };

typedef struct tvlm_session_options {
  size_t size;
  uint32_t threads;         /* The calling one included; 0: as the model was told. tvlm_session_configure does not look at it. */
  uint32_t max_new_tokens;  /* Of an answer, the end token included; 0: 256. */
  float temperature;        /* 0: the likeliest token each time; up to 100. */
  uint32_t top_k;           /* Only so many tokens can be drawn; 0: all. */
  float top_p;              /* Only tokens that reach this probability together; 0: 1, which is all. */
  float repetition_penalty; /* 0: 1, which is off; up to 100. */
  uint64_t seed;            /* Where the random numbers start. */
  int32_t speculation;      /* Most tokens guessed and verified together, which changes no answer; 0: as suits; -1: none. */
  uint32_t affinity;        /* TVLM_AFFINITY_*: PERFORMANCE binds the threads to the fast processors, the calling one while it
                               works, where the system agrees; there are as many as those unless `threads` says. tvlm_session_configure
                               does not look at it. */
} tvlm_session_options;
#define TVLM_SESSION_OPTIONS_INIT {sizeof(tvlm_session_options), 0, 0, 0, 0, 0, 0, 0, 0, 0}

enum {
  TVLM_FORMAT_RGB8 = 0,
  TVLM_FORMAT_RGBA8 = 1, /* Alpha is not looked at: draw transparent pictures on white before. */
  TVLM_FORMAT_BGRA8 = 2, /* The same. */
  TVLM_FORMAT_GRAY8 = 3,
  TVLM_FORMAT_NV12 = 4,      /* A plane of luma, and one of blue and red chroma in turn for each 2 x 2 pixels: BT.601, all values from
                                0 to 255, as the cameras of phones have them (420f). */
  TVLM_FORMAT_NV12_VIDEO = 5 /* The same with luma from 16 to 235 and chroma from 16 to 240 (420v). */
};

typedef struct tvlm_pixels {
  size_t size;
  const uint8_t *data; /* The upper row first. */
  uint32_t width;      /* Pixels in a row. */
  uint32_t height;
  size_t stride;       /* Bytes from one row to the next; 0: without gaps. */
  uint32_t format;     /* TVLM_FORMAT_*. */
  uint32_t side;       /* Of the square that the model sees, one of those in tvlm_model_info; 0: the largest, smaller under
                        * tvlm_session_pressure. */
  const uint8_t *chroma; /* With TVLM_FORMAT_NV12*: the second plane; NULL: behind height * stride bytes of the first. */
  size_t chroma_stride;  /* Bytes from one of its rows to the next; 0: as stride, or without gaps where that is 0. */
} tvlm_pixels;
#define TVLM_PIXELS_INIT {sizeof(tvlm_pixels), NULL, 0, 0, 0, 0, 0, NULL, 0}

typedef enum tvlm_stop {
  TVLM_STOP_NONE = 0,
  TVLM_STOP_END_OF_TEXT = 1,
  TVLM_STOP_MAX_TOKENS = 2,
  TVLM_STOP_CONTEXT_FULL = 3,
  TVLM_STOP_CANCELLED = 4,
  TVLM_STOP_CALLBACK = 5 /* on_text returned something else than 0. */
} tvlm_stop;

typedef struct tvlm_result {
  size_t size;
  uint32_t stop;         /* tvlm_stop. */
  uint32_t tokens;       /* Tokens of the answer, the end token included. */
  uint32_t prefill_rows; /* Positions that were computed for the question; what the session held already is not. */
  uint32_t position;     /* Positions of the conversation by now. */
  double prefill_ms;     /* Of reading the question; pictures were read before, by tvlm_session_encode. */
  double decode_ms;      /* Of all tokens after the first one, pauses included. */
  double rested_ms;      /* Of rests between them under TVLM_PRESSURE_CRITICAL, which decode_ms leaves out. */
} tvlm_result;
#define TVLM_RESULT_INIT {sizeof(tvlm_result), 0, 0, 0, 0, 0, 0, 0}

/* How much the device wants to be left alone: 3/4, 1/2 and one of the threads work, smaller pictures from SERIOUS on where the
 * model has several sides, rests between tokens when CRITICAL. Threads and rests
 * change no answer; a picture that is encoded smaller shows less. */
enum { TVLM_PRESSURE_NOMINAL = 0, TVLM_PRESSURE_FAIR = 1, TVLM_PRESSURE_SERIOUS = 2, TVLM_PRESSURE_CRITICAL = 3 };

/* What came of an affinity: not asked for; threads run on some processors; they have Apple's class "user-initiated"; the system
 * does not tell fast processors, or refused. */
enum { TVLM_BOUND_FREE = 0, TVLM_BOUND_PROCESSORS = 1, TVLM_BOUND_USER_INITIATED = 2, TVLM_BOUND_REFUSED = 3 };

typedef struct tvlm_session_info {
  size_t size;
  uint32_t threads;        /* That there are, the calling one included. */
  uint32_t active_threads; /* That work under the present pressure. */
  uint32_t image_side;     /* Pixels on each side of the square that the next picture becomes. */
  uint32_t position;       /* Positions of the conversation. */
  uint32_t bound;          /* TVLM_BOUND_*. */
  uint32_t processors;     /* With TVLM_BOUND_PROCESSORS, how many. */
} tvlm_session_info;
#define TVLM_SESSION_INFO_INIT {sizeof(tvlm_session_info), 0, 0, 0, 0, 0, 0}

/* A piece of an answer: whole characters, `bytes` of them before the zero, gone when the function returns. It is called by the
 * thread that called tvlm_session_ask. Returning something else than 0 ends the answer. */
typedef int32_t (*tvlm_on_text)(void *context, const char *text, size_t bytes);

/* "0.1.0": the library's version. */
TVLM_API const char *tvlm_version(void);

/* Opens the weight file of this library, in milliseconds if it is mapped. A file that is mapped stays as it is until the model is
 * closed: replace it by renaming another, as the system ends a process that reads what was cut off. */
TVLM_API int32_t tvlm_model_open(const char *path, const tvlm_open_options *options, tvlm_model **model, tvlm_error *error);
TVLM_API int32_t tvlm_model_info_get(const tvlm_model *model, tvlm_model_info *info, tvlm_error *error);
/* Gives pages of mapped weights back to the system, which reads them again as they are needed; sessions may work meanwhile.
 * `bytes`, which may be NULL, gets how many were in memory. */
TVLM_API int32_t tvlm_model_trim(const tvlm_model *model, uint64_t *bytes, tvlm_error *error);
TVLM_API int32_t tvlm_model_close(tvlm_model *model, tvlm_error *error);

/* A conversation: its memory and its threads. */
TVLM_API int32_t tvlm_session_open(const tvlm_model *model, const tvlm_session_options *options, tvlm_session **session,
                                   tvlm_error *error);
/* Other options from the next answer on. */
TVLM_API int32_t tvlm_session_configure(tvlm_session *session, const tvlm_session_options *options, tvlm_error *error);
/* A picture to what the model sees, once; it can be asked about in all sessions of the model. */
TVLM_API int32_t tvlm_session_encode(tvlm_session *session, const tvlm_pixels *pixels, tvlm_image **image, tvlm_error *error);
/* Asks about `count` pictures, or none, and goes on with the conversation. Returns when the answer has ended. `on_text` and
 * `result` may be NULL. An answer that was stopped is part of the conversation as far as it came; after an error the
 * conversation is what it was. */
TVLM_API int32_t tvlm_session_ask(tvlm_session *session, const tvlm_image *const *images, size_t count, const char *question,
                                  tvlm_on_text on_text, void *context, tvlm_result *result, tvlm_error *error);
/* Stops what the session does, from any thread; without effect where it does nothing. */
TVLM_API int32_t tvlm_session_cancel(const tvlm_session *session, tvlm_error *error);
/* Lets what the session does wait after its current step, with all threads asleep, from any thread; work that begins meanwhile
 * waits too, until tvlm_session_resume. What is paused can be cancelled. */
TVLM_API int32_t tvlm_session_pause(const tvlm_session *session, tvlm_error *error);
TVLM_API int32_t tvlm_session_resume(const tvlm_session *session, tvlm_error *error);
/* Tells how the device is, from any thread: TVLM_PRESSURE_*. Holds until something else is told. */
TVLM_API int32_t tvlm_session_pressure(const tvlm_session *session, uint32_t pressure, tvlm_error *error);
/* Goes on with an answer that ended before the model ended it: by a callback, by cancelling, at its longest, or before the
 * conversation was saved. TVLM_ERROR_ARGUMENT if there is none. */
TVLM_API int32_t tvlm_session_continue(tvlm_session *session, tvlm_on_text on_text, void *context, tvlm_result *result,
                                       tvlm_error *error);
/* Writes the conversation to a file, which is complete or as it was before; a session of the same library and weights takes it
 * up again, also in another process, and goes on with the same tokens. Options of sampling are part of it, and hold from
 * tvlm_session_restore on until tvlm_session_configure; max_new_tokens and speculation are the session's. Files hold what was
 * said: put them where other apps cannot read. After a failure of tvlm_session_restore the conversation is what it was. */
TVLM_API int32_t tvlm_session_save(tvlm_session *session, const char *path, tvlm_error *error);
TVLM_API int32_t tvlm_session_restore(tvlm_session *session, const char *path, tvlm_error *error);
/* Gives back memory that the conversation does not need; the next answer takes longer to begin. `bytes`, which may be NULL, gets
 * how many were in memory. */
TVLM_API int32_t tvlm_session_trim(tvlm_session *session, uint64_t *bytes, tvlm_error *error);
TVLM_API int32_t tvlm_session_info_get(tvlm_session *session, tvlm_session_info *info, tvlm_error *error);
/* Begins a new conversation; pictures stay. */
TVLM_API int32_t tvlm_session_reset(tvlm_session *session, tvlm_error *error);
TVLM_API int32_t tvlm_session_close(tvlm_session *session, tvlm_error *error);

TVLM_API int32_t tvlm_image_close(tvlm_image *image, tvlm_error *error);

#ifdef __cplusplus
}
#endif

#endif
