/* The #SBATCH lines and the twins of a job that sbatch has not read, and the arguments of a step of
 * --multi-prog. What spank(8) gives is the input. */
#include "fuzz.h"
#include "plugin/plugin.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

struct mpsr_plugin mpsr_plugin;
static char script[] = "/tmp/mpsr-fuzz-script-XXXXXX";
static char *arguments[2] = {script, NULL};
static char *twin;

spank_err_t spank_getenv(spank_t spank, const char *name, char *value, int size) {
    (void)spank;
    if (strcmp(name, MPSR_ENV_JOB_CONTROL_STEP) == 0 || !twin)
        return ESPANK_ENV_NOEXIST;
    return snprintf(value, (size_t)size, "%s", twin) < size ? ESPANK_SUCCESS : ESPANK_NOSPACE;
}

spank_err_t spank_setenv(spank_t spank, const char *name, const char *value, int overwrite) {
    (void)spank, (void)overwrite;
    assert(*name && !strchr(value, '\n'));
    return ESPANK_SUCCESS;
}

spank_err_t spank_get_item(spank_t spank, spank_item_t item, ...) {
    va_list out;
    (void)spank;
    va_start(out, item);
    assert(item == S_JOB_ARGV);
    *va_arg(out, int *) = 1;
    *va_arg(out, char ***) = arguments;
    va_end(out);
    return ESPANK_SUCCESS;
}

bool mpsr_option_variable(int index, char *name, size_t size) {
    return (size_t)snprintf(name, size, "SLURM_SPANK_%s", mpsr_option_specs[index].key) < size;
}

static void write_script(const uint8_t *data, size_t size) {
    static int fd = -1;
    if (fd < 0)
        fd = mkstemp(script);
    assert(fd >= 0 && !ftruncate(fd, 0) && pwrite(fd, data, size, 0) == (ssize_t)size);
}

__attribute__((destructor)) static void remove_script(void) {
    unlink(script);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = fuzz_text(data, size), *step[] = {text, text + strlen(text) / 2};
    memset(&mpsr_plugin, 0, sizeof(mpsr_plugin));
    mpsr_site_read(&mpsr_plugin.site, 0, NULL);
    write_script(data, size);
    twin = size && data[0] == '=' ? text + 1 : NULL;
    mpsr_batch_options(NULL);
    mpsr_several_programs(2, step, text);
    free(text);
    return 0;
}
