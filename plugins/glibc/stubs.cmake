# Links by the versions that symbols of glibc had up to 2.28, so that a library built on a newer
# system loads on an older one (manylinux_2_28).
#
# glibc 2.34 took libpthread, libdl and librt into libc and gave their functions a new version; the
# old ones stay in it for old programs. The stubs made here have these functions, in the libraries
# and with the version of before; nothing of them is called or shipped. They stand in front of the
# system's libraries on every link line.
set(XLSTM_STUB_libpthread.so.0
  pthread_condattr_setpshared pthread_create pthread_detach pthread_getspecific pthread_join
  pthread_key_create pthread_key_delete pthread_kill pthread_mutex_trylock
  pthread_mutexattr_destroy pthread_mutexattr_init pthread_mutexattr_setpshared
  pthread_mutexattr_settype pthread_once pthread_rwlock_destroy pthread_rwlock_init
  pthread_rwlock_rdlock pthread_rwlock_timedrdlock pthread_rwlock_timedwrlock
  pthread_rwlock_tryrdlock pthread_rwlock_trywrlock pthread_rwlock_unlock pthread_rwlock_wrlock
  pthread_rwlockattr_destroy pthread_rwlockattr_init pthread_rwlockattr_setpshared
  pthread_setspecific pthread_spin_destroy pthread_spin_init pthread_spin_lock
  pthread_spin_trylock pthread_spin_unlock sem_destroy sem_init sem_post sem_timedwait
  sem_trywait sem_wait)
set(XLSTM_STUB_libdl.so.2 dladdr dlclose dlerror dlopen dlsym dlvsym)
set(XLSTM_STUB_librt.so.1 shm_open shm_unlink)
set(XLSTM_STUB_libm.so.6 exp)  # 2.29 has another one, which reports no errors
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(XLSTM_GLIBC GLIBC_2.2.5)
  set(XLSTM_LATER_libdl.so.2 GLIBC_2.3.4 dlmopen)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(XLSTM_GLIBC GLIBC_2.17)
  list(APPEND XLSTM_STUB_libdl.so.2 dlmopen)
endif()

set(stubs)
if(XLSTM_GLIBC AND CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT XLSTM_SANITIZE)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/glibc)
  file(MAKE_DIRECTORY ${folder})
  foreach(library libpthread.so.0 libdl.so.2 librt.so.1 libm.so.6)
    set(code)
    set(map)
    list(JOIN XLSTM_STUB_${library} "; " names)
    string(APPEND map "${XLSTM_GLIBC} { global: ${names}; };\n")
    if(XLSTM_LATER_${library})
      list(POP_FRONT XLSTM_LATER_${library} version)
      list(JOIN XLSTM_LATER_${library} "; " names)
      string(APPEND map "${version} { global: ${names}; };\n")
    endif()
    foreach(name ${XLSTM_STUB_${library}} ${XLSTM_LATER_${library}})
      string(APPEND code "void ${name}(void) {}\n")
    endforeach()
    file(WRITE ${folder}/${library}.c "${code}")
    file(WRITE ${folder}/${library}.map "${map}")
    execute_process(
      COMMAND ${CMAKE_CXX_COMPILER} -x c -fno-builtin -w -shared -fPIC -nostdlib
              -Wl,-soname,${library} -Wl,--version-script=${folder}/${library}.map
              ${folder}/${library}.c -o ${folder}/${library}
      COMMAND_ERROR_IS_FATAL ANY)
    list(APPEND stubs ${folder}/${library})
  endforeach()
  list(JOIN stubs " " stubs)
  # only those that are asked for something are needed
  set(CMAKE_CXX_STANDARD_LIBRARIES
      "-Wl,--push-state,--as-needed ${stubs} -Wl,--pop-state ${CMAKE_CXX_STANDARD_LIBRARIES}")
endif()
