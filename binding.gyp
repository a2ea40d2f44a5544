{
  'variables': {
    'isal_library%': '<!(node native/probe-codecs.mjs isal)',
    'zstd_library%': '<!(node native/probe-codecs.mjs zstd)',
  },
  'targets': [
    {
      'target_name': 'layerstore',
      'sources': [
        '<!@(node -p "require(\'fs\').readFileSync(\'native/sources.txt\', \'utf8\').match(/^native.+[.]cc$/gm).join(\' \')")',
      ],
      'include_dirs': ['native'],
      'defines': [
        'NAPI_VERSION=8',
        'NAPI_DISABLE_CPP_EXCEPTIONS',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
        # a worker that is being terminated takes no exception: that must not end the process
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
        '_FILE_OFFSET_BITS=64',
      ],
      'cflags': [
        '-Wall', '-Wextra', '-Wconversion', '-Wshadow',
        '-O2', '-fvisibility=hidden', '-fstack-protector-strong',
        # headers that are not ours, whose warnings are not ours either
        '-isystem', '<(node_root_dir)/include/node',
        '-isystem', '<!(node -p "require(\'path\').dirname(require.resolve(\'node-addon-api\'))")',
      ],
      # node-gyp turns some warnings off and asks for -O3; what the package promises comes last
      'cflags!': ['-O3', '-Wno-unused-parameter'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++1y', '-std=gnu++20', '-frtti', '-fexceptions'],
      'cflags_cc': ['-std=c++20', '-fno-exceptions', '-fno-rtti', '-fvisibility-inlines-hidden'],
      'ldflags': [
        '-Wl,-z,relro', '-Wl,-z,now', '-Wl,-z,nodelete', '-Wl,-Bsymbolic', '-Wl,--exclude-libs,ALL', '-Wl,--as-needed',
        '-Wl,--version-script=<(module_root_dir)/native/exports.map',
      ],
      'configurations': {
        'Release': { 'defines': ['_FORTIFY_SOURCE=2'] },
      },
      'conditions': [
        ['isal_library!=""', {
          'defines': ['LS_HAVE_ISAL=1'],
          'libraries': ['<(isal_library)'],
        }],
        ['zstd_library!=""', {
          'defines': ['LS_HAVE_ZSTD=1'],
          'libraries': ['<(zstd_library)'],
        }],
      ],
    },
  ],
}
