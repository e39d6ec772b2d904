/* Says where it is; linked statically, so that an image needs nothing else. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void) {
    char line[256] = "";
    FILE *file = fopen("/proc/self/status", "r");
    const char *pipe = getenv("CUDA_MPS_PIPE_DIRECTORY");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "Name: %255s", line) == 1)
            break;
    if (file)
        fclose(file);
    printf("uid %d, /usr %s, pipe %s, name %s\n", (int)getuid(),
           access("/usr", F_OK) ? "missing" : "there", pipe ? pipe : "none", line);
    return 0;
}
