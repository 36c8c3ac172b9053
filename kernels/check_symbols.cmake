# Fails when an ISA's object offers any symbol but its table. A weak symbol (an inline or template function of the
# standard library, say) compiled with -mavx512f could be the copy that the linker keeps for every CPU.
# Called as: cmake -DNM=<nm> -DOBJECTS=<list> -P check_symbols.cmake
foreach(object ${OBJECTS})
  execute_process(COMMAND ${NM} --defined-only --extern-only ${object} OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${NM} cannot read ${object}")
  endif()
  string(REGEX REPLACE "[^\n]* [BDR] [^\n]*kernels_[a-z0-9]+E?\n" "" others "${symbols}")
  if(NOT others STREQUAL "")
    message(FATAL_ERROR "${object} exports more than its kernel table:\n${others}")
  endif()
endforeach()
