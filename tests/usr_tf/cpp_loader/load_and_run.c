/* Loads a SavedModel as a model server does and runs its signatures, with no Python anywhere.
 *
 *   load_and_run EXPORT_DIR META_GRAPH_FILE < REQUESTS > ANSWERS
 *
 * TF_LoadSessionFromSavedModel calls tensorflow::LoadSavedModel with the tag "serve": the session loader behind
 * TensorFlow Serving's SavedModelBundleFactory. The MetaGraphDef that it gives goes to META_GRAPH_FILE.
 *
 * Everything else is words between spaces. A request names its tensors by operation and output:
 *
 *   REQUESTS  request count, then for each request its feeds and its fetches
 *   feeds     count, then for each: operation, output, dtype (its number), rank, sizes, values in row-major order
 *   fetches   count, then for each: operation, output
 *   ANSWERS   for each fetch: element count, then values; float32 alone
 *
 * A string is "x" and two hexadecimal digits a byte, so that the empty one is a word too.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

enum { MAX_RANK = 8, MAX_TENSORS = 256, MAX_WORD = 1 << 20 };

static void fail(const char* what, const char* detail) {
  fprintf(stderr, "%s: %s\n", what, detail);
  exit(1);
}

static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

static const char* next_word(void) {
  static char word[MAX_WORD + 1];
  if (scanf("%1048576s", word) != 1) fail("requests", "they end too early");
  return word;
}

static long long next_integer(void) { return strtoll(next_word(), NULL, 10); }

static int next_count(int most) {
  long long count = next_integer();
  if (count < 0 || count > most) fail("requests", "a count out of range");
  return (int)count;
}

static TF_Output next_place(TF_Graph* graph) {
  TF_Output place;
  const char* name = next_word();
  place.oper = TF_GraphOperationByName(graph, name);
  if (place.oper == NULL) fail("no such operation", name);
  place.index = next_count(MAX_TENSORS);
  return place;
}

static void read_string(TF_TString* string) {
  const char* hex = next_word() + 1;
  size_t size = strlen(hex) / 2;
  char* bytes = malloc(size + 1);
  for (size_t place = 0; place < size; ++place) {
    unsigned byte;
    if (sscanf(hex + 2 * place, "%2x", &byte) != 1) fail("no hexadecimal string", hex);
    bytes[place] = (char)byte;
  }
  TF_StringInit(string);
  TF_StringCopy(string, bytes, size);
  free(bytes);
}

static TF_Tensor* next_tensor(void) {
  TF_DataType dtype = (TF_DataType)next_count(64);
  int rank = next_count(MAX_RANK);
  int64_t sizes[MAX_RANK];
  size_t elements = 1;
  for (int axis = 0; axis < rank; ++axis) {
    sizes[axis] = next_integer();
    elements *= (size_t)sizes[axis];
  }
  size_t size = dtype == TF_STRING ? sizeof(TF_TString) : TF_DataTypeSize(dtype);
  TF_Tensor* tensor = TF_AllocateTensor(dtype, sizes, rank, elements * size);
  void* data = TF_TensorData(tensor);
  for (size_t place = 0; place < elements; ++place) {
    switch (dtype) {
      case TF_STRING:
        read_string((TF_TString*)data + place);
        break;
      case TF_FLOAT:
        ((float*)data)[place] = strtof(next_word(), NULL);
        break;
      case TF_INT64:
        ((int64_t*)data)[place] = next_integer();
        break;
      default:
        fail("requests", "a dtype that no signature has");
    }
  }
  return tensor;
}

static void print_tensor(const TF_Tensor* tensor) {
  if (TF_TensorType(tensor) != TF_FLOAT) fail("answer", "a dtype other than float32");
  int64_t elements = TF_TensorElementCount(tensor);
  printf("%" PRId64, elements);
  for (int64_t place = 0; place < elements; ++place) printf(" %.9g", ((const float*)TF_TensorData(tensor))[place]);
  printf("\n");
}

static void answer(TF_Session* session, TF_Graph* graph, TF_Status* status) {
  TF_Output feeds[MAX_TENSORS], fetches[MAX_TENSORS];
  TF_Tensor *given[MAX_TENSORS], *found[MAX_TENSORS];
  int feed_count = next_count(MAX_TENSORS);
  for (int feed = 0; feed < feed_count; ++feed) {
    feeds[feed] = next_place(graph);
    given[feed] = next_tensor();
  }
  int fetch_count = next_count(MAX_TENSORS);
  for (int fetch = 0; fetch < fetch_count; ++fetch) fetches[fetch] = next_place(graph);
  TF_SessionRun(session, NULL, feeds, given, feed_count, fetches, found, fetch_count, NULL, 0, NULL, status);
  check(status, "run");
  for (int fetch = 0; fetch < fetch_count; ++fetch) {
    print_tensor(found[fetch]);
    TF_DeleteTensor(found[fetch]);
  }
  for (int feed = 0; feed < feed_count; ++feed) TF_DeleteTensor(given[feed]);
}

int main(int argc, char** argv) {
  if (argc != 3) fail("usage", "load_and_run EXPORT_DIR META_GRAPH_FILE < REQUESTS > ANSWERS");
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Buffer* meta_graph = TF_NewBuffer();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, meta_graph, status);
  check(status, "load");

  FILE* file = fopen(argv[2], "wb");
  if (file == NULL || fwrite(meta_graph->data, 1, meta_graph->length, file) != meta_graph->length || fclose(file))
    fail("cannot write", argv[2]);

  int requests = next_count(1 << 20);
  for (int request = 0; request < requests; ++request) answer(session, graph, status);

  TF_CloseSession(session, status);
  check(status, "close");
  TF_DeleteSession(session, status);
  TF_DeleteBuffer(meta_graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
