/* Asks a question about a picture in a PPM file (P6, as `ffmpeg -i photo.jpg photo.ppm` writes it).
 *
 *     ./example weights.tvlm photo.ppm "What is on the table?"
 */
#include <stdio.h>
#include <stdlib.h>

#include "tvlm.h"

static int32_t show(void *context, const char *text, size_t bytes) {
  (void)context;
  fwrite(text, 1, bytes, stdout);
  fflush(stdout);
  return 0;
}

/* Reads the pixels of a PPM file; NULL if it is none. */
static uint8_t *read_ppm(const char *path, tvlm_pixels *pixels) {
  FILE *file = fopen(path, "rb");
  unsigned width, height;
  uint8_t *data = NULL;
  if (file == NULL) {
    perror(path);
    return NULL;
  }
  if (fscanf(file, "P6 %u %u 255", &width, &height) == 2 && width < 65536 && height < 65536) {
    size_t bytes = (size_t)3 * width * height;
    fgetc(file);
    data = malloc(bytes > 0 ? bytes : 1);
    if (data != NULL && fread(data, 1, bytes, file) != bytes) {
      free(data);
      data = NULL;
    }
    pixels->data = data;
    pixels->width = width;
    pixels->height = height;
  }
  fclose(file);
  return data;
}

int main(int argc, char **argv) {
  tvlm_error error = TVLM_ERROR_INIT;
  tvlm_pixels pixels = TVLM_PIXELS_INIT;
  tvlm_result result = TVLM_RESULT_INIT;
  tvlm_model *model = NULL;
  tvlm_session *chat = NULL;
  tvlm_image *image = NULL;
  uint8_t *data = NULL;
  if (argc != 4) {
    fprintf(stderr, "usage: %s WEIGHTS PICTURE.ppm QUESTION\n", argv[0]);
    return 2;
  }
  data = read_ppm(argv[2], &pixels);
  if (data == NULL) {
    fprintf(stderr, "%s: expected a PPM file, P6, 8 bits for each color, without comments\n", argv[2]);
    return 3;
  }
  if (tvlm_model_open(argv[1], NULL, &model, &error) || tvlm_session_open(model, NULL, &chat, &error) ||
      tvlm_session_encode(chat, &pixels, &image, &error) ||
      tvlm_session_ask(chat, (const tvlm_image *const *)&image, 1, argv[3], show, NULL, &result, &error)) {
    fprintf(stderr, "%s\n", error.message);
  } else {
    printf("\n");
    fprintf(stderr, "%u tokens, %.0f ms for reading the question, %.1f ms for each after the first\n", (unsigned)result.tokens, result.prefill_ms,
            result.tokens > 1 ? result.decode_ms / (result.tokens - 1) : 0.0);
  }
  tvlm_image_close(image, NULL);
  tvlm_session_close(chat, NULL);
  tvlm_model_close(model, NULL);
  free(data);
  return error.code != 0;
}
