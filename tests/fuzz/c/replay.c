/* Gives each file of the command line to a target: what libFuzzer does with a corpus, for gcc. */
#include "fuzz.h"

#include <stdio.h>

int main(int argc, char **argv) {
    for (int index = 1; index < argc; index++) {
        FILE *file = fopen(argv[index], "rb");
        assert(file);
        uint8_t *data = malloc(1 << 20);
        size_t size = fread(data, 1, 1 << 20, file);
        fclose(file);
        data = realloc(data, size ? size : 1);
        fprintf(stderr, "%s\n", argv[index]);
        LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
    return 0;
}
