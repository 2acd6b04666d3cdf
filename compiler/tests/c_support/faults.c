/* Bad input through the C interface: `faults WEIGHTS OTHER-FILE`. Prints a line for each, and ends with "done". */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tvlm.h"

static tvlm_error error = TVLM_ERROR_INIT;

/* The code must be this one, and the message must say the words. */
static void expect(const char *what, int32_t found, int32_t expected, const char *words) {
  if (found != expected || error.code != expected || strstr(error.message, words) == NULL) {
    printf("%s: %d (%d), expected %d and \"%s\": %s\n", what, (int)found, (int)error.code, (int)expected, words, error.message);
    exit(1);
  }
  printf("%s: %s\n", what, error.message);
}

static char long_path[5001];

typedef struct talk {
  tvlm_session *chat;
  int32_t inside; /* What a call out of the callback returned. */
  int pieces, limit;
} talk;

static int32_t on_text(void *context, const char *text, size_t bytes) {
  talk *own = context;
  if (strlen(text) != bytes) exit(2);
  own->pieces += 1;
  /* What may be told at any time. */
  if (tvlm_session_pressure(own->chat, TVLM_PRESSURE_FAIR, NULL) || tvlm_session_pause(own->chat, NULL) ||
      tvlm_session_resume(own->chat, NULL)) exit(33);
  if (tvlm_session_save(own->chat, "never", NULL) != TVLM_ERROR_BUSY || tvlm_session_trim(own->chat, NULL, NULL) != TVLM_ERROR_BUSY ||
      tvlm_session_restore(own->chat, "never", NULL) != TVLM_ERROR_BUSY ||
      tvlm_session_continue(own->chat, NULL, NULL, NULL, NULL) != TVLM_ERROR_BUSY ||
      tvlm_session_info_get(own->chat, (tvlm_session_info *)&error, NULL) != TVLM_ERROR_BUSY) exit(34);
  own->inside = tvlm_session_ask(own->chat, NULL, 0, "Again?", NULL, NULL, NULL, &error);
  return own->pieces == own->limit;
}

/* What a delegate is told to do, and how often it was called. */
typedef struct helper {
  int32_t returns;
  float value; /* In the last place. */
  int calls;
} helper;

static int32_t vision(void *context, const uint8_t *rgb, uint32_t side, float *rows, uint32_t tokens, uint32_t hidden) {
  helper *own = context;
  uint32_t i;
  own->calls += 1;
  if (rgb[0] != rgb[3 * side * side - 1]) exit(20);
  for (i = 0; i < tokens * hidden; i++) rows[i] = 0.01f * (float)(i % 7);
  rows[tokens * hidden - 1] = own->value;
  return own->returns;
}

/* Pictures by a delegate: well, refused, and with rows that are no numbers. */
static void delegates(const char *weights, const tvlm_pixels *pixels) {
  static const char *const reasons[3] = {NULL, "it returned 7", "NaN at ["};
  tvlm_open_options open = TVLM_OPEN_OPTIONS_INIT;
  tvlm_delegate delegate = TVLM_DELEGATE_INIT;
  tvlm_model *model = NULL;
  helper own;
  int i;
  open.delegate = &delegate;
  delegate.vision = vision;
  expect("no name", tvlm_model_open(weights, &open, &model, &error), TVLM_ERROR_ARGUMENT, "options.delegate.name: is NULL");
  delegate.name = "helper";
  delegate.vision = NULL;
  expect("no function", tvlm_model_open(weights, &open, &model, &error), TVLM_ERROR_ARGUMENT, "options.delegate.vision: is NULL");
  delegate.vision = vision;
  delegate.size = 7;
  expect("no size", tvlm_model_open(weights, &open, &model, &error), TVLM_ERROR_ARGUMENT, "options.delegate: its field size");
  delegate.context = &own;
  for (i = 0; i < 3; i++) {
    tvlm_model_info info = TVLM_MODEL_INFO_INIT;
    tvlm_session *chat = NULL;
    tvlm_image *image = NULL;
    int n;
    memset(&own, 0, sizeof own);
    own.returns = i == 1 ? 7 : 0;
    own.value = 1.0f;
    if (i == 2) memset(&own.value, 0xff, sizeof own.value);
    delegate.size = sizeof delegate;
    expect("with a delegate", tvlm_model_open(weights, &open, &model, &error), TVLM_OK, "");
    delegate.size = 0; /* Nobody looks at it any more. */
    expect("a session", tvlm_session_open(model, NULL, &chat, &error), TVLM_OK, "");
    for (n = 0; n < 2; n++) {
      expect("a picture", tvlm_session_encode(chat, pixels, &image, &error), TVLM_OK, "");
      tvlm_image_close(image, NULL);
    }
    expect("told", tvlm_model_info_get(model, &info, &error), TVLM_OK, "");
    if ((info.delegate == NULL) != (i == 2) || (info.delegate != NULL && strcmp(info.delegate, "helper"))) exit(21);
    if ((info.delegate_reason == NULL) != (i == 0)) exit(22);
    if (i > 0 && strstr(info.delegate_reason, reasons[i]) == NULL) exit(23);
    printf("delegate %d: %d calls, %d encoded, %d fell back, %s\n", i, own.calls, (int)info.delegate_encoded,
           (int)info.delegate_fell_back, info.delegate_reason ? info.delegate_reason : "no reason");
    if (own.calls != (i == 2 ? 1 : 2) || info.delegate_encoded != (i == 0 ? 2u : 0u) ||
        info.delegate_fell_back != (i == 0 ? 0u : i == 1 ? 2u : 1u)) exit(24);
    tvlm_session_close(chat, NULL);
    tvlm_model_close(model, NULL);
  }
}

/* Reads a text that is as long as it may be. */
typedef struct words {
  size_t used;
  char text[4096];
} words;

static int32_t collect(void *context, const char *text, size_t bytes) {
  words *own = context;
  if (own->used + bytes >= sizeof own->text) exit(25);
  memcpy(own->text + own->used, text, bytes + 1);
  own->used += bytes;
  return 0;
}

/* Saved in the middle of an answer, it goes on in another session as it does in this one. */
static void saves(tvlm_session *chat, const tvlm_model *model, const tvlm_image *image, const char *path) {
  tvlm_session_options options = TVLM_SESSION_OPTIONS_INIT;
  tvlm_session *other = NULL;
  tvlm_result result = TVLM_RESULT_INIT;
  words here, there;
  FILE *file;
  memset(&here, 0, sizeof here);
  memset(&there, 0, sizeof there);
  options.max_new_tokens = 6;
  options.temperature = 0.7f;
  options.seed = 5;
  expect("reset", tvlm_session_reset(chat, &error), TVLM_OK, "");
  expect("sampled", tvlm_session_configure(chat, &options, &error), TVLM_OK, "");
  expect("nothing to continue", tvlm_session_continue(chat, NULL, NULL, NULL, &error), TVLM_ERROR_ARGUMENT, "ask a question");
  expect("asked", tvlm_session_ask(chat, &image, 1, "What is this?", NULL, NULL, &result, &error), TVLM_OK, "");
  if (result.stop != TVLM_STOP_MAX_TOKENS) exit(26);
  expect("no path", tvlm_session_save(chat, NULL, &error), TVLM_ERROR_ARGUMENT, "path: is NULL");
  expect("no folder", tvlm_session_save(chat, "/nowhere/chat", &error), TVLM_ERROR_FILE, "/nowhere/chat: cannot write");
  expect("saved", tvlm_session_save(chat, path, &error), TVLM_OK, "");
  expect("another", tvlm_session_open(model, NULL, &other, &error), TVLM_OK, "");
  expect("no file", tvlm_session_restore(other, "/nowhere/chat", &error), TVLM_ERROR_FILE, "/nowhere/chat: cannot read");
  expect("restored", tvlm_session_restore(other, path, &error), TVLM_OK, "");
  expect("other options", tvlm_session_configure(other, &options, &error), TVLM_OK, "");
  expect("here", tvlm_session_continue(chat, collect, &here, &result, &error), TVLM_OK, "");
  expect("there", tvlm_session_continue(other, collect, &there, NULL, &error), TVLM_OK, "");
  printf("goes on with %u tokens: %s\n", (unsigned)result.tokens, here.text);
  if (strcmp(here.text, there.text)) exit(27);
  /* What is changed, cut or something else is no conversation. */
  file = fopen(path, "r+b");
  if (file == NULL || fseek(file, 200, SEEK_SET) || fputc('x', file) == EOF || fclose(file)) exit(28);
  expect("damaged", tvlm_session_restore(other, path, &error), TVLM_ERROR_SAVED_DAMAGED, "begin a new conversation");
  file = fopen(path, "wb");
  if (file == NULL || fputs("hello", file) < 0 || fclose(file)) exit(29);
  expect("foreign", tvlm_session_restore(other, path, &error), TVLM_ERROR_SAVED_FOREIGN, "starts with \"hello\"");
  expect("still there", tvlm_session_continue(other, NULL, NULL, NULL, &error), TVLM_OK, "");
  remove(path);
  tvlm_session_close(other, NULL);
}

static volatile int resumed = 0;

static void *resumes(void *chat) {
  struct timespec time = {0, 100000000};
  nanosleep(&time, NULL);
  resumed = 1;
  tvlm_session_resume(chat, NULL);
  return NULL;
}

static void *cancels(void *chat) {
  int i;
  for (i = 0; i < 1000; i++) tvlm_session_cancel(chat, NULL);
  return NULL;
}

int main(int argc, char **argv) {
  static const uint8_t gray[32 * 24];
  tvlm_model *model = NULL, *none = NULL;
  tvlm_session *chat = NULL;
  tvlm_image *image = NULL;
  tvlm_open_options open = TVLM_OPEN_OPTIONS_INIT;
  tvlm_session_options options = TVLM_SESSION_OPTIONS_INIT;
  tvlm_model_info info = TVLM_MODEL_INFO_INIT;
  tvlm_pixels pixels = TVLM_PIXELS_INIT;
  tvlm_result result = TVLM_RESULT_INIT;
  tvlm_error small;
  talk own;
  pthread_t thread;
  struct { tvlm_open_options known; uint64_t more; } newer;
  tvlm_session_info doing = TVLM_SESSION_INFO_INIT;
  tvlm_model *kept = NULL;
  uint64_t bytes = 1;
  uint32_t pressure;
  char version[32], path[512];
  if (argc != 3) return 2;
  printf("sizes %zu %zu %zu %zu %zu %zu %zu %zu %zu\n", sizeof(tvlm_error), sizeof open, sizeof info, sizeof options,
         sizeof pixels, sizeof result, sizeof(tvlm_code), sizeof(tvlm_delegate), sizeof doing);
  snprintf(version, sizeof version, "%d.%d.%d", TVLM_VERSION_MAJOR, TVLM_VERSION_MINOR, TVLM_VERSION_PATCH);
  if (strcmp(version, tvlm_version())) return 30;

  /* A new handle is NULL after a failure, whatever was there before. */
  none = (tvlm_model *)&open;
  chat = (tvlm_session *)&open;
  image = (tvlm_image *)&open;
  expect("no path", tvlm_model_open(NULL, NULL, &none, &error), TVLM_ERROR_ARGUMENT, "path: is NULL");
  expect("no model", tvlm_session_open(NULL, NULL, &chat, &error), TVLM_ERROR_ARGUMENT, "model: is NULL");
  expect("no session", tvlm_session_encode(NULL, &pixels, &image, &error), TVLM_ERROR_ARGUMENT, "session: is NULL");
  if (none != NULL || chat != NULL || image != NULL) return 31;
  expect("no place", tvlm_model_open(argv[1], NULL, NULL, &error), TVLM_ERROR_ARGUMENT, "model: is NULL");
  expect("no file", tvlm_model_open("/nowhere", NULL, &none, &error), TVLM_ERROR_FILE, "/nowhere: cannot open");
  /* Of a message that is too long the reason stays. */
  memset(long_path, 'x', sizeof long_path - 1);
  expect("no such name", tvlm_model_open(long_path, NULL, &none, &error), TVLM_ERROR_FILE, "xx: cannot open: File name too long");
  expect("no weights", tvlm_model_open(argv[2], NULL, &none, &error), TVLM_ERROR_NOT_WEIGHTS, "not a weight file");
  expect("no text", tvlm_model_open("\xff", NULL, &none, &error), TVLM_ERROR_ARGUMENT, "is not UTF-8");
  open.size = 3;
  expect("no size", tvlm_model_open(argv[1], &open, &none, &error), TVLM_ERROR_ARGUMENT, "size is not set");
  open.size = sizeof open;
  open.level = "z80";
  expect("no level", tvlm_model_open(argv[1], &open, &none, &error), TVLM_ERROR_UNKNOWN_LEVEL, "level \"z80\"");
  open.level = NULL;
  open.verify = 7;
  expect("no such check", tvlm_model_open(argv[1], &open, &none, &error), TVLM_ERROR_ARGUMENT, "TVLM_VERIFY_");
  open.verify = 0;
  open.threads = 100000;
  expect("no such team", tvlm_model_open(argv[1], &open, &none, &error), TVLM_ERROR_ARGUMENT, "threads: 100000 is out of range");
  open.threads = 0;
  memset(&newer, 0, sizeof newer);
  newer.known.size = sizeof newer;
  newer.more = 1;
  expect("newer", tvlm_model_open(argv[1], &newer.known, &none, &error), TVLM_ERROR_ARGUMENT, "older than the header");
  if (none != NULL) return 3;
  newer.more = 0;
  expect("opened", tvlm_model_open(argv[1], &newer.known, &model, &error), TVLM_OK, "");
  /* A message is cut where it has no room, and a code alone is enough. */
  small.size = offsetof(tvlm_error, message) + 5;
  memset(small.message, 'x', sizeof small.message);
  if (tvlm_model_open(argv[2], NULL, &none, &small) != small.code || strlen(small.message) != 4 || small.message[5] != 'x') return 4;
  if (tvlm_model_open(argv[2], NULL, &none, NULL) != TVLM_ERROR_NOT_WEIGHTS) return 5;

  expect("told", tvlm_model_info_get(model, &info, &error), TVLM_OK, "");
  printf("level %s, side %u, positions %u\n", info.level, (unsigned)info.image_side, (unsigned)info.max_context);
  if (info.size != sizeof info || info.image_side == 0 || info.weights_bytes == 0) return 6;
  if (info.side_count == 0 || info.sides[info.side_count - 1].side != info.image_side ||
      info.sides[info.side_count - 1].tokens != info.tokens_per_image) return 12;
  info.size = sizeof(size_t) + 4;
  info.tokens_per_image = 4711;
  if (tvlm_model_info_get(model, &info, NULL) || info.tokens_per_image != 4711) return 7;

  options.temperature = -1;
  expect("no option", tvlm_session_open(model, &options, &chat, &error), TVLM_ERROR_ARGUMENT, "temperature");
  options.temperature = 0;
  options.speculation = -2;
  expect("no guess", tvlm_session_open(model, &options, &chat, &error), TVLM_ERROR_ARGUMENT, "less than -1");
  options.speculation = 0;
  options.affinity = 7;
  expect("no place", tvlm_session_open(model, &options, &chat, &error), TVLM_ERROR_ARGUMENT, "TVLM_AFFINITY_");
  options.affinity = TVLM_AFFINITY_PERFORMANCE;
  options.max_new_tokens = 6;
  options.threads = 2;
  expect("session", tvlm_session_open(model, &options, &chat, &error), TVLM_OK, "");
  tvlm_model_close(model, NULL); /* The session keeps what it needs. */
  /* Of callers that were compiled before there were delegates. */
  open.verify = 0;
  open.size = offsetof(tvlm_open_options, delegate);
  open.delegate = (const tvlm_delegate *)1;
  expect("older", tvlm_model_open(argv[1], &open, &kept, &error), TVLM_OK, "");

  expect("nowhere", tvlm_session_info_get(chat, NULL, &error), TVLM_ERROR_ARGUMENT, "info: is NULL");
  expect("doing", tvlm_session_info_get(chat, &doing, &error), TVLM_OK, "");
  if (doing.threads != 2 || doing.active_threads != 2 || doing.image_side != info.image_side || doing.position != 0) return 31;
  if (doing.bound == TVLM_BOUND_FREE || (doing.bound == TVLM_BOUND_PROCESSORS) != (doing.processors > 0)) return 32;
  printf("bound %u, processors %u\n", (unsigned)doing.bound, (unsigned)doing.processors);
  expect("no pressure", tvlm_session_pressure(chat, 4, &error), TVLM_ERROR_ARGUMENT, "TVLM_PRESSURE_");

  expect("no pixels", tvlm_session_encode(chat, NULL, &image, &error), TVLM_ERROR_ARGUMENT, "pixels: is NULL");
  pixels.width = 32;
  pixels.height = 24;
  pixels.format = TVLM_FORMAT_GRAY8;
  expect("no data", tvlm_session_encode(chat, &pixels, &image, &error), TVLM_ERROR_ARGUMENT, "pixels.data");
  pixels.data = gray;
  pixels.stride = 31;
  expect("no row", tvlm_session_encode(chat, &pixels, &image, &error), TVLM_ERROR_ARGUMENT, "pixels.stride");
  pixels.stride = 0;
  pixels.height = 0;
  expect("no height", tvlm_session_encode(chat, &pixels, &image, &error), TVLM_ERROR_IMAGE, "image: 32 x 0 pixels");
  pixels.height = 24;
  pixels.side = 7;
  expect("no side", tvlm_session_encode(chat, &pixels, &image, &error), TVLM_ERROR_ARGUMENT, "pixels.side: 7 is not of the model, which has");
  pixels.side = 0;
  expect("image", tvlm_session_encode(chat, &pixels, &image, &error), TVLM_OK, "");

  expect("no question", tvlm_session_ask(chat, NULL, 0, "", NULL, NULL, NULL, &error), TVLM_ERROR_EMPTY_PROMPT, "empty");
  expect("no image", tvlm_session_ask(chat, (const tvlm_image *const *)&none, 1, "What?", NULL, NULL, NULL, &error),
         TVLM_ERROR_ARGUMENT, "images: the handle at index 0 is NULL");
  expect("no images", tvlm_session_ask(chat, NULL, 1, "What?", NULL, NULL, NULL, &error), TVLM_ERROR_ARGUMENT, "images: is NULL");
  memset(&own, 0, sizeof own);
  own.chat = chat;
  own.limit = 1;
  if (tvlm_session_ask(chat, (const tvlm_image *const *)&image, 1, "What is this?", on_text, &own, &result, NULL)) return 8;
  expect("inside", own.inside, TVLM_ERROR_BUSY, "session:");
  if (own.pieces != 1 || result.stop != TVLM_STOP_CALLBACK || result.size != sizeof result) return 9;
  /* The conversation goes on after all of this, and while another thread cancels as it likes. */
  if (pthread_create(&thread, NULL, cancels, chat)) return 10;
  tvlm_session_ask(chat, NULL, 0, "And now?", NULL, NULL, &result, &error);
  pthread_join(thread, NULL);
  if (error.code != TVLM_OK && error.code != TVLM_ERROR_CANCELLED) return 11;
  expect("reset", tvlm_session_reset(chat, &error), TVLM_OK, "");
  expect("again", tvlm_session_ask(chat, (const tvlm_image *const *)&image, 1, "What is this?", NULL, NULL, &result, &error), TVLM_OK, "");
  printf("tokens %u\n", (unsigned)result.tokens);

  /* Hot, hidden and short of memory. */
  for (pressure = TVLM_PRESSURE_NOMINAL; pressure <= TVLM_PRESSURE_CRITICAL; pressure++) {
    uint32_t tokens = result.tokens;
    expect("pressure", tvlm_session_pressure(chat, pressure, &error), TVLM_OK, "");
    if (tvlm_session_info_get(chat, &doing, NULL) || doing.active_threads != (pressure < TVLM_PRESSURE_SERIOUS ? 2u : 1u)) return 35;
    tvlm_session_reset(chat, NULL);
    if (tvlm_session_ask(chat, (const tvlm_image *const *)&image, 1, "What is this?", NULL, NULL, &result, NULL)) return 36;
    if (result.tokens != tokens) return 37;
  }
  tvlm_session_pressure(chat, TVLM_PRESSURE_NOMINAL, NULL);
  expect("paused", tvlm_session_pause(chat, &error), TVLM_OK, "");
  if (pthread_create(&thread, NULL, resumes, chat)) return 38;
  expect("resumed", tvlm_session_ask(chat, NULL, 0, "And now?", NULL, NULL, &result, &error), TVLM_OK, "");
  if (!resumed) return 39;
  pthread_join(thread, NULL);
  expect("trimmed", tvlm_session_trim(chat, &bytes, &error), TVLM_OK, "");
  if (bytes % 4096) return 40;
  expect("weights trimmed", tvlm_model_trim(kept, &bytes, &error), TVLM_OK, "");
  if (bytes != 0) return 41; /* The file is small, so it is in private memory. */
  snprintf(path, sizeof path, "%s.chat", argv[2]);
  saves(chat, kept, image, path);
  delegates(argv[1], &pixels);
  expect("no model", tvlm_model_trim(NULL, NULL, &error), TVLM_ERROR_ARGUMENT, "model: is NULL");
  expect("no session", tvlm_session_pause(NULL, &error), TVLM_ERROR_ARGUMENT, "session: is NULL");
  expect("no session", tvlm_session_resume(NULL, &error), TVLM_ERROR_ARGUMENT, "session: is NULL");
  expect("no session", tvlm_session_pressure(NULL, 0, &error), TVLM_ERROR_ARGUMENT, "session: is NULL");
  expect("no session", tvlm_session_save(NULL, path, &error), TVLM_ERROR_ARGUMENT, "session: is NULL");
  expect("no session", tvlm_session_restore(NULL, path, &error), TVLM_ERROR_ARGUMENT, "session: is NULL");
  expect("no session", tvlm_session_trim(NULL, NULL, &error), TVLM_ERROR_ARGUMENT, "session: is NULL");
  expect("no session", tvlm_session_continue(NULL, NULL, NULL, NULL, &error), TVLM_ERROR_ARGUMENT, "session: is NULL");
  expect("no session", tvlm_session_info_get(NULL, &doing, &error), TVLM_ERROR_ARGUMENT, "session: is NULL");
  tvlm_model_close(kept, NULL);

  expect("image closed", tvlm_image_close(image, &error), TVLM_OK, "");
  expect("closed", tvlm_session_close(chat, &error), TVLM_OK, "");
  expect("nothing closed", tvlm_session_close(NULL, &error), TVLM_OK, "");
  printf("done\n");
  return 0;
}
