/* Bad input through the C interface: `faults WEIGHTS OTHER-FILE`. Prints a line for each, and ends with "done". */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

typedef struct talk {
  tvlm_session *chat;
  int32_t inside; /* What a call out of the callback returned. */
  int pieces, limit;
} talk;

static int32_t on_text(void *context, const char *text, size_t bytes) {
  talk *own = context;
  if (strlen(text) != bytes) exit(2);
  own->pieces += 1;
  own->inside = tvlm_session_ask(own->chat, NULL, 0, "Again?", NULL, NULL, NULL, &error);
  return own->pieces == own->limit;
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
  if (argc != 3) return 2;
  printf("sizes %zu %zu %zu %zu %zu %zu %zu\n", sizeof(tvlm_error), sizeof open, sizeof info, sizeof options, sizeof pixels,
         sizeof result, sizeof(tvlm_code));

  expect("no path", tvlm_model_open(NULL, NULL, &none, &error), TVLM_ERROR_ARGUMENT, "path: is NULL");
  expect("no place", tvlm_model_open(argv[1], NULL, NULL, &error), TVLM_ERROR_ARGUMENT, "model: is NULL");
  expect("no file", tvlm_model_open("/nowhere", NULL, &none, &error), TVLM_ERROR_FILE, "/nowhere: cannot open");
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
  options.reserved = 7;
  expect("reserved", tvlm_session_open(model, &options, &chat, &error), TVLM_ERROR_ARGUMENT, "is not 0");
  options.reserved = 0;
  options.max_new_tokens = 6;
  options.threads = 2;
  expect("session", tvlm_session_open(model, &options, &chat, &error), TVLM_OK, "");
  tvlm_model_close(model, NULL); /* The session keeps what it needs. */

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
         TVLM_ERROR_ARGUMENT, "images: is NULL");
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

  expect("image closed", tvlm_image_close(image, &error), TVLM_OK, "");
  expect("closed", tvlm_session_close(chat, &error), TVLM_OK, "");
  expect("nothing closed", tvlm_session_close(NULL, &error), TVLM_OK, "");
  printf("done\n");
  return 0;
}
