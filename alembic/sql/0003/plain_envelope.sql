-- Returns the envelope of a payload, as pgchannels/codec/envelope.py describes: plain JSON, with headers in front.
CREATE OR REPLACE FUNCTION {schema}.plain_envelope(payload jsonb, headers jsonb) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    content text := payload::text;
    envelope bytea := '\x06'::bytea || convert_to(content, 'UTF8');
    header bytea;
BEGIN
    IF payload IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'the payload is NULL', HINT = 'Send ''null''::jsonb for a JSON null.';
    END IF;
    IF octet_length(envelope) > 67108864 THEN
        RAISE program_limit_exceeded USING
            MESSAGE = format('the payload takes %s bytes, 67108864 are the most', octet_length(envelope)),
            HINT = 'Send what identifies it, and let receivers read the rest; a trigger can leave columns out.';
    END IF;
    IF length(content) - length(translate(content, '[{', '')) > 200 AND jsonb_path_exists(
        payload, 'strict $.**{200} ? (@.type() == "array" || @.type() == "object")'
    ) THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'the payload is nested deeper than 200 levels',
            HINT = 'Send the inner levels as a text, or what identifies them.';
    END IF;
    IF headers IS NULL OR headers = '{}' THEN
        RETURN envelope;
    END IF;
    IF jsonb_typeof(headers) <> 'object' OR EXISTS (
        SELECT FROM jsonb_each(CASE WHEN jsonb_typeof(headers) = 'object' THEN headers ELSE '{}' END) AS h (name, value)
        WHERE CASE jsonb_typeof(value) WHEN 'string' THEN false WHEN 'number' THEN value::numeric <> trunc(value::numeric)
                   OR value::numeric NOT BETWEEN -9223372036854775808 AND 18446744073709551615 ELSE true END
    ) THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'headers must be a JSON object of texts and integers of 64 bits',
            HINT = 'For example headers => ''{"traceparent": "00-..."}''.';
    END IF;
    header := '\x06'::bytea || convert_to((
        SELECT jsonb_object_agg(name, CASE jsonb_typeof(value) WHEN 'number' THEN to_jsonb(trim_scale(value::numeric)) ELSE value END)
        FROM jsonb_each(headers) AS h (name, value)  -- 1.0 is an integer
    )::text, 'UTF8');
    IF octet_length(header) > 4096 THEN
        RAISE program_limit_exceeded USING
            MESSAGE = format('the headers take %s bytes, 4096 are the most', octet_length(header)),
            HINT = 'Put what is long into the payload.';
    END IF;
    RETURN '\x05'::bytea || int2send(octet_length(header)::smallint) || header || envelope;
END
$$
